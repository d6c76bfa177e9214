/*
 * Whose a socket buffer is.
 *
 * A packet is often put together, copied or sent in a softirq on top of whatever thread
 * is there. Three things tell whose it is, and are asked in this order:
 *
 * - The pages of a send with MSG_ZEROCOPY, or by io_uring, travel with a ubuf_info that
 *   says whom to tell when they are free. It is noted when it is handed out, and when
 *   pages are filled in under it.
 * - Until it is received, a packet belongs to the socket that sent it, and waiting in a
 *   queue to the socket that it was received for. A socket is noted when a thread with a
 *   window sends to it or receives from it.
 * - Where the transfer has network namespaces of its own, one for each end, everything in
 *   one of them is that end's.
 */
BPF_HASH(owners, u64, u32, MAX_OWNERS);
/* Whether there ever was an owner: as long as there was none, no lookup is needed. */
BPF_ARRAY(any_owner, u32, 1);

/*
 * Which end a network namespace, by its inode's number, belongs to: END_SUBJECT, the process
 * under measurement, or whom it sends to, or receives from.
 */
BPF_HASH(ends, u64, u32, 8);

/*
 * Whose the buffer is that another one is being merged into, and where on the stack that was said:
 * a thread may be preempted in there, and go on on another processor, or behind somebody else.
 */
struct merge {
	u64 stack;
	u32 role;
	u32 pad;
};

BPF_PERCPU_ARRAY(merging, struct merge, 1);
#define MERGE_STACK 1024 /* more than the stack between skb_try_coalesce and its copy function */
/* Whose backlog this processor is putting a packet into. */
BPF_PERCPU_ARRAY(waiting, u32, 1);

/*
 * The arguments of a function that has called the program. They stand on the stack, so that
 * there is something to read for those that the function does not have.
 */
static inline struct arguments arguments_of(void *ctx)
{
	struct arguments arguments = {};

	bpf_probe_read_kernel(&arguments, sizeof(arguments), ctx);
	return arguments;
}

/*
 * The place on the stack of what a program finds that a function calls. It is the same for a
 * program at the entry and one at the return; as a number, which the verifier does not follow.
 */
static inline u64 place_of(void *ctx)
{
	u64 place = 0;

	bpf_probe_read_kernel(&place, sizeof(place), &ctx);
	return place;
}

static inline void own(u64 thing)
{
	u32 role = open_role(), *before, *any;
	int first = 0;

	any = any_owner.lookup(&first);
	if (!thing || !any || (!role && !*any))
		return;
	before = owners.lookup(&thing);
	if (!role) {
		/* The address may have belonged to somebody with a window. */
		if (before)
			owners.delete(&thing);
		return;
	}
	*any = 1;
	if ((!before || *before != role) && owners.update(&thing, &role))
		count_lost(LOST_OWNER);
}

/* Entry of inet_sock_destruct(sock): its address may become another socket's. */
static inline int socket_gone(u64 socket)
{
	int first = 0;
	u32 *any = any_owner.lookup(&first);

	if (any && *any)
		owners.delete(&socket);
	return 0;
}

int on_socket_gone(struct pt_regs *ctx)
{
	return socket_gone(ctx->di);
}

int on_fentry_socket_gone(void *ctx)
{
	return socket_gone(arguments_of(ctx).di);
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

/* Entry of a protocol's function that takes the struct sock first. */
int on_socket_used(struct pt_regs *ctx)
{
	own(ctx->di);
	return 0;
}

/* Entry of generic_splice_sendpage(pipe, file, ...). */
int on_spliced_to_socket(struct pt_regs *ctx)
{
	own(u64_at(u64_at(ctx->si, FILE_PRIVATE), SOCKET_SOCK));
	return 0;
}

static inline u32 owner_by_namespace(u64 namespace)
{
	u64 inode = u32_at(namespace, NET_INODE);
	u32 *end = ends.lookup(&inode), role = pending_role();

	if (!end || !role)
		return 0;
	return *end == END_SUBJECT ? role : PEER_OF(role);
}

/* The role that a socket belongs to; 0 if none is known. */
static inline u32 owner_of_socket(u64 socket)
{
	u32 *role = owners.lookup(&socket);

	if (!socket)
		return 0;
	return role ? *role : owner_by_namespace(u64_at(socket, SOCK_NET));
}

/*
 * The ubuf_info that a socket buffer's pages travel with; 0 if there is none. The pointer
 * means something only while its flag is set: it stays behind when the pages have been
 * copied, and in memory that is used again, where the address may have become another
 * send's. skb_copy_ubufs takes the flag away when it has copied: at its entry it is set.
 */
static inline u64 ubuf_info_of(u64 skb)
{
	u64 shared = u64_at(skb, SKB_HEAD) + u32_at(skb, SKB_END);

	if (!(u32_at(shared, SHINFO_FLAGS) & SHINFO_ZEROCOPY))
		return 0;
	return u64_at(shared, SHINFO_DESTRUCTOR_ARG);
}

/* Whether anything may be anybody's. */
static inline bool may_be_owned(void)
{
#ifdef FLOWS
	/* Of a traced program, no namespaces are known (ends). */
	int first = 0;
	u32 *any = any_owner.lookup(&first);

	return any && *any;
#else
	return true;
#endif
}

/* The role that a socket buffer belongs to; 0 if none is known. */
static inline u32 owner_of(u64 skb)
{
	u64 buffers = ubuf_info_of(skb), device = u64_at(skb, SKB_DEVICE);
	u32 *role = buffers ? owners.lookup(&buffers) : 0, of_socket;

	if (role)
		return *role;
	of_socket = owner_of_socket(u64_at(skb, SKB_SOCK));
	if (of_socket)
		return of_socket;
	/* Of a buffer in some queues, other things stand in the device's place. */
	return IS_KERNEL(device) ? owner_by_namespace(u64_at(device, DEVICE_NET)) : 0;
}

/*
 * Entry of tcp_add_backlog(sock, skb, ...), for packets that come while the socket is in
 * use: packets that wait there have no owner yet, and are merged for the socket's owner.
 */
static inline int waits_for(u32 role)
{
	int first = 0;
	u32 *now = waiting.lookup(&first);

	if (now)
		*now = role;
	return 0;
}

int on_backlog(struct pt_regs *ctx)
{
	return waits_for(may_be_owned() ? owner_of_socket(ctx->di) : 0);
}

int on_fentry_backlog(void *ctx)
{
	return waits_for(may_be_owned() ? owner_of_socket(arguments_of(ctx).di) : 0);
}

/* Return of the same. */
int on_backlog_done(struct pt_regs *ctx)
{
	return waits_for(0);
}

int on_fexit_backlog(void *ctx)
{
	return waits_for(0);
}

/*
 * Entry of skb_try_coalesce(to, from, ...): what it copies out of `from`, which has no
 * owner yet, is for the owner of `to`.
 */
static inline int merges_into(u64 skb, u64 stack)
{
	int first = 0;
	struct merge *merge = merging.lookup(&first);
	u32 *backlog = waiting.lookup(&first), owner = 0;

	if (may_be_owned())
		owner = owner_of(skb);

	if (merge) {
		merge->role = owner || !backlog ? owner : *backlog;
		merge->stack = stack;
	}
	return 0;
}

int on_merge(struct pt_regs *ctx)
{
	return merges_into(ctx->di, ctx->sp);
}

int on_fentry_merge(void *ctx)
{
	return merges_into(arguments_of(ctx).di, place_of(ctx));
}

/*
 * The same as owner_of() for a copy that the code at `caller` has asked for. A small packet
 * that is put into a backlog is pulled into one piece there, for the backlog's owner.
 */
static inline u32 owner_of_copy(u64 skb, u64 caller, u64 stack)
{
	int first = 0;
	struct merge *merge = merging.lookup(&first);
	u32 *backlog = waiting.lookup(&first), owner;

	if (MERGE_SIZE && caller - MERGE_START < MERGE_SIZE && merge && merge->role &&
	    stack + MERGE_STACK - merge->stack < 2 * MERGE_STACK)
		return merge->role;
	owner = owner_of(skb);
	return owner || !backlog ? owner : *backlog;
}

/*
 * The socket of the packet capture that this processor is handing a packet to; 0: none. Softirqs
 * are off in there, so that nothing else on this processor handles packets at that time.
 */
BPF_PERCPU_ARRAY(tapping, u64, 1);

static inline int taps_for(u64 socket)
{
	int first = 0;
	u64 *now = tapping.lookup(&first);

	if (now)
		*now = socket;
	return 0;
}

/* Entry of packet_rcv(skb, device, packet_type, ...) and tpacket_rcv(the same). */
int on_tap(struct pt_regs *ctx)
{
	return taps_for(u64_at(ctx->dx, TAP_SOCK));
}

int on_fentry_tap(void *ctx)
{
	return taps_for(u64_at(arguments_of(ctx).dx, TAP_SOCK));
}

/* Return of the same. */
int on_tapped(struct pt_regs *ctx)
{
	return taps_for(0);
}

int on_fexit_tapped(void *ctx)
{
	return taps_for(0);
}

/* Entry of packet_setsockopt(socket, ...): a socket with a ring for packets captures them. */
int on_tap_set_up(struct pt_regs *ctx)
{
	own(u64_at(ctx->di, SOCKET_SOCK));
	return 0;
}

/* Entry of packet_poll(file, socket, ...). */
int on_tap_awaited(struct pt_regs *ctx)
{
	own(u64_at(ctx->si, SOCKET_SOCK));
	return 0;
}

static inline u64 tap_here(void)
{
	int first = 0;
	u64 *socket = tapping.lookup(&first);

	return socket ? *socket : 0;
}

/*
 * Count what is copied of a packet for the capture with socket `tap`: for the window of the
 * capturing process. Without one it is counted apart, while tracked work is pending, whose
 * packet it may be.
 */
static inline void count_tapped(void *ctx, u64 tap, u32 site, u32 direction, u64 bytes,
				u64 caller)
{
	u32 *role = owners.lookup(&tap), pending = pending_role();

	if (role)
		count_anywhere(ctx, site, direction, bytes, caller, *role);
	else if (pending)
		tally_as(ROLE_TAPPED | pending, site, direction, NO_SYSCALL, bytes, caller);
}

/*
 * What skb_copy_bits and its like will copy of `length` bytes from `offset`: all of them,
 * or nothing where the socket buffer is shorter.
 */
static inline u64 within(u64 skb, s32 offset, s32 length)
{
	return offset <= (s32)u32_at(skb, SKB_LEN) - length ? (u32)length : 0;
}
