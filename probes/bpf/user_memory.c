/*
 * Copies within a program's own memory, at the entry of the functions that make them. Only
 * in a meter that is told to watch a program's functions.
 *
 *	USER_COPY_n               SITE, LENGTH in bytes of probe n (0..5)
 *	USER_COPIES_FROM          smaller ones are not counted
 */

/*
 * A word in user memory, read as strings, of which every zero ends one: that is not done by
 * the routine under user copies. Reads by that one would be seen by its breakpoint, as the
 * program's own on some kernels, and on others by its event alone.
 */
#define WORD_BYTES 6 /* the other two are zero in addresses and sizes */

static inline u64 user_word_at(u64 place)
{
	u64 words[2] = {};
	u32 at = 0;

#pragma unroll
	for (int i = 0; i < WORD_BYTES; i++) {
		long length;

		if (at >= WORD_BYTES)
			break;
		length = bpf_probe_read_user_str((char *)words + at, 8 - at, (void *)(place + at));
		if (length <= 0) {
			lose(LOST_PART);
			return 0;
		}
		at += length;
	}
	return words[0];
}

static inline int copied_by_itself(struct pt_regs *ctx, u32 site, u64 length)
{
	hit(site);
	if (length < USER_COPIES_FROM)
		return 0;
	count_here(ctx, site, USER_TO_USER, length, user_word_at(ctx->sp), window_here());
	return 0;
}

#define COPIED_BY_ITSELF(...) copied_by_itself(ctx, __VA_ARGS__)

#ifdef USER_COPY_0
int on_user_copy_0(struct pt_regs *ctx)
{
	return COPIED_BY_ITSELF(USER_COPY_0);
}
#endif

#ifdef USER_COPY_1
int on_user_copy_1(struct pt_regs *ctx)
{
	return COPIED_BY_ITSELF(USER_COPY_1);
}
#endif

#ifdef USER_COPY_2
int on_user_copy_2(struct pt_regs *ctx)
{
	return COPIED_BY_ITSELF(USER_COPY_2);
}
#endif

#ifdef USER_COPY_3
int on_user_copy_3(struct pt_regs *ctx)
{
	return COPIED_BY_ITSELF(USER_COPY_3);
}
#endif

#ifdef USER_COPY_4
int on_user_copy_4(struct pt_regs *ctx)
{
	return COPIED_BY_ITSELF(USER_COPY_4);
}
#endif

#ifdef USER_COPY_5
int on_user_copy_5(struct pt_regs *ctx)
{
	return COPIED_BY_ITSELF(USER_COPY_5);
}
#endif
