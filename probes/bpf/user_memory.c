/*
 * Copies within a program's own memory, at the entry of the functions that make them. Only
 * in a meter that is told to watch a program's functions.
 *
 *	USER_COPY_n               SITE, PUSHED, LENGTH of probe n (0..5): how many bytes lie on
 *	                          the stack above the address to return to, and are copied
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
	u64 at = 0;

#pragma unroll
	for (int i = 0; i < WORD_BYTES; i++) {
		s64 length;

		if (at >= WORD_BYTES)
			break;
		/* What the compiler knows of it the verifier would not see. */
		asm volatile("" : "+r"(at));
		at &= 7;
		asm volatile("" : "+r"(at));
		length = bpf_probe_read_user_str((char *)words + at, 8 - at, (void *)(place + at));
		if (length < 0) {
			lose(LOST_PART);
			return 0;
		}
		/* The zero at the end is in the length, except that of nothing else. */
		at += length ? length : 1;
	}
	return words[0];
}

static inline void copied_by_itself(struct pt_regs *ctx, u32 site, u64 pushed, u64 length)
{
	hit(site);
	if (length >= USER_COPIES_FROM)
		count_here(ctx, site, USER_TO_USER, length, user_word_at(ctx->sp + pushed),
			   window_here());
}

/* In a window alone: what is to be read of user memory may cost a failure that counts. */
#define COPIED_BY_ITSELF(...)                                   \
	do {                                                    \
		if (is_open(window_here()))                     \
			copied_by_itself(ctx, __VA_ARGS__);     \
		return 0;                                       \
	} while (0)

#ifdef USER_COPY_0
int on_user_copy_0(struct pt_regs *ctx)
{
	COPIED_BY_ITSELF(USER_COPY_0);
}
#endif

#ifdef USER_COPY_1
int on_user_copy_1(struct pt_regs *ctx)
{
	COPIED_BY_ITSELF(USER_COPY_1);
}
#endif

#ifdef USER_COPY_2
int on_user_copy_2(struct pt_regs *ctx)
{
	COPIED_BY_ITSELF(USER_COPY_2);
}
#endif

#ifdef USER_COPY_3
int on_user_copy_3(struct pt_regs *ctx)
{
	COPIED_BY_ITSELF(USER_COPY_3);
}
#endif

#ifdef USER_COPY_4
int on_user_copy_4(struct pt_regs *ctx)
{
	COPIED_BY_ITSELF(USER_COPY_4);
}
#endif

#ifdef USER_COPY_5
int on_user_copy_5(struct pt_regs *ctx)
{
	COPIED_BY_ITSELF(USER_COPY_5);
}
#endif
