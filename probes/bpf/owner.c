/*
 * Whose a zero-copy send is.
 *
 * The pages of a send with MSG_ZEROCOPY, or by io_uring, travel with a ubuf_info that
 * says whom to tell when they are free. Where such a packet has to be copied after all,
 * that happens in a softirq on top of whatever thread is there; the ubuf_info is what
 * still tells whose it was. It is noted when it is handed out, and when pages are filled
 * in under it.
 */
BPF_HASH(owners, u64, u32, MAX_OWNERS);

static inline void own(u64 buffers)
{
	struct window *window = window_here();
	u32 role;

	if (!buffers)
		return;
	if (!is_open(window)) {
		/* The address may have belonged to somebody with a window. */
		owners.delete(&buffers);
		return;
	}
	role = window->role;
	if (owners.update(&buffers, &role))
		lose(LOST_OWNER);
}

/* Return of msg_zerocopy_realloc. */
int on_zerocopy_begun(struct pt_regs *ctx)
{
	/* Its error codes lie in the topmost page. */
	if (ctx->ax < (u64)-4095)
		own(ctx->ax);
	return 0;
}

/* Entry of skb_zerocopy_iter_stream(sock, skb, message, length, ubuf_info, ...). */
int on_zerocopy_filled(struct pt_regs *ctx)
{
	own(ctx->r8);
	return 0;
}

/* The role that a socket buffer's pages were sent in; 0 if none is known. */
static inline u32 owner_of(u64 skb)
{
	u64 shared = u64_at(skb, SKB_HEAD) + u32_at(skb, SKB_END);
	u64 buffers = u64_at(shared, SHINFO_DESTRUCTOR_ARG);
	u32 *role = owners.lookup(&buffers);

	return role ? *role : 0;
}

/*
 * What skb_copy_bits and its like will copy of `length` bytes from `offset`: all of them,
 * or nothing where the socket buffer is shorter.
 */
static inline u64 within(u64 skb, s32 offset, s32 length)
{
	return offset <= (s32)u32_at(skb, SKB_LEN) - length ? (u32)length : 0;
}
