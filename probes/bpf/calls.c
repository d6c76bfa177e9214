/*
 * Copies, counted in the callers of the function that copies.
 *
 * A probe on the CALL instruction sees the request and its kind of memory. A
 * probe on the next instruction sees what was really copied. Between the two the
 * call is kept under its thread and its place. The instruction behind may also be
 * jumped to from elsewhere: then nothing is kept and nothing counted.
 *
 * One program serves all places; what there is to know of each stands in two maps, under
 * the instruction pointer as the program sees it.
 */

struct call_site {
	u32 site;     /* number of the target */
	u32 caller;   /* number of the place, from 1 */
	u32 size;     /* bytes, where no argument says them */
	u8 length;    /* where the context has the bytes asked for; 0: nowhere */
	u8 iterator;  /* where the context has the address of the iov_iter; 0: nowhere */
	u8 direction; /* where user memory is involved, or always if there is no iterator */
	u8 returned;  /* what the return value says: RETURNED_*, of probes/site.py */
	u8 pages_to_pipe;
	u8 int_length; /* the argument is an int: the upper half of its register is undefined */
	u8 payload;    /* what the bytes are for: payload */
	u8 pad;
};

struct call_key {
	u64 thread;
	u64 caller;
};

struct call {
	u64 stack; /* the stack pointer: the same again when this very call returns */
	u64 asked;
	u32 site;
	u32 direction;
	u32 returned;
	u32 role; /* of the window that it counts for, or of pending work that it may be for */
	u32 pending; /* whether it is the latter */
};

BPF_HASH(call_sites, u64, struct call_site, MAX_CALL_SITES);
BPF_HASH(return_sites, u64, u32, MAX_CALL_SITES);
BPF_HASH(calls, struct call_key, struct call, MAX_THREADS);

/*
 * The register at a byte offset of the context. Not read as a member: the program would
 * add a variable to its context and read there, which the kernel does not let it.
 */
static inline u64 argument(struct pt_regs *ctx, u8 offset)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)ctx + offset);
	return value;
}

/* Idle threads share a number; their processor tells them apart. */
static inline u64 thread_here(void)
{
	u32 thread = bpf_get_current_pid_tgid();

	return thread ? thread : THREAD_KEY(bpf_get_smp_processor_id());
}

/* Which way the bytes go; 0 if none are copied. */
static inline u32 direction_of(struct call_site *at, u64 iterator)
{
	u32 kind = 0;

	if (!at->iterator)
		return at->direction;
	bpf_probe_read_kernel(&kind, ITER_TYPE_BYTES, (void *)(iterator + ITER_TYPE_OFFSET));
	kind &= ITER_TYPE_MASK;
	if (IS_USER_ITER(kind))
		return at->direction;
	if (IS_DISCARD_ITER(kind))
		return 0;
	if (at->pages_to_pipe && IS_PIPE_ITER(kind))
		return 0;
	return KERNEL_TO_KERNEL;
}

/*
 * What pending work a copy of payload may be for that a thread without a window makes: a
 * kernel thread of a device or a network file system, or a process that serves the program.
 * Only inside the kernel: user memory is copied for its owner. Nor is it of others' programs and
 * modules that are loaded. 0: for none.
 */
static inline u32 role_of_stranger(struct call_site *at, u32 direction)
{
	u32 pending = pending_role();

	if (!pending || !at->payload || direction != KERNEL_TO_KERNEL ||
	    reads_for_itself(syscall_here()))
		return 0;
	return ROLE_UNATTRIBUTED | pending;
}

#ifdef FLOWS
/*
 * Note that the current thread is in a call that counts for `role`; 0: for no role, since its
 * window is about to open. A breakpoint inside the call counts for the same role.
 */
static inline void call_begins(u32 role)
{
	struct thread *thread = copying_thread();

	if (!thread)
		return;
	thread->in_call = 1;
	thread->call_role = role;
}

static inline void call_ends(void)
{
	struct thread *thread = thread_known(bpf_get_current_pid_tgid());

	if (thread)
		thread->in_call = 0;
}
#else
static inline void call_begins(u32 role)
{
}

static inline void call_ends(void)
{
}
#endif

/*
 * role_or_window() for copies to and from user memory: a kernel thread that works on a program's
 * memory works for that program. Before Linux kernel commit 3bfe6106693b ("io-wq: fork
 * worker threads from original task") (in v5.12) io_uring had such threads.
 */
static inline u32 role_by_memory(struct window **unopened)
{
	u32 role = role_or_window(unopened);
	struct window *window;
	u64 memory;

	if (role || *unopened)
		return role;
	memory = memory_here();
	window = memory ? window_of(memory) : NULL;
	if (is_open(window))
		return window->role;
	*unopened = window;
	return 0;
}

/* On a CALL instruction. Nothing is counted yet. */
int on_call(struct pt_regs *ctx)
{
	u64 place = ctx->ip;
	struct call_site *at = call_sites.lookup(&place);
	struct call_key key = {.thread = thread_here()};
	struct call call = {.stack = ctx->sp};
	struct window *unopened;
	u32 role;

	if (!at) {
		count_lost(LOST_CALL);
		return 0;
	}
	count_hit(at->site);
	role = role_by_memory(&unopened);
	if (!role && (unopened || !pending_role())) {
		if (unopened)
			call_begins(0);
		return 0;
	}
	call.direction = direction_of(at, argument(ctx, at->iterator));
	if (!call.direction)
		return 0;
	call.pending = !role;
	call.role = role ? role : role_of_stranger(at, call.direction);
	if (!call.role)
		return 0;
	if (role)
		call_begins(role);
	call.asked = at->size;
	if (at->length)
		call.asked = argument(ctx, at->length);
	if (at->int_length)
		call.asked = (u32)call.asked;
	call.site = at->site;
	call.returned = at->returned;
	key.caller = at->caller;
	if (calls.update(&key, &call))
		count_lost(LOST_CALL);
	return 0;
}

/* Behind a CALL instruction: +1 call, and the bytes that it moved. */
int on_return(struct pt_regs *ctx)
{
	u64 place = ctx->ip, bytes = ctx->ax;
	u32 *caller = return_sites.lookup(&place);
	struct call_key key = {.thread = thread_here()};
	struct call *call;

	if (!caller) {
		count_lost(LOST_CALL);
		return 0;
	}
	call_ends();
	key.caller = *caller;
	call = calls.lookup(&key);
	if (!call)
		return 0; /* jumped to, or a call without a role */
	if (call->stack != ctx->sp) {
		count_lost(LOST_CALL);
		return 0;
	}
	switch (call->returned) {
	case RETURNED_ALL_IF_TRUE:
		bytes = (u8)bytes ? call->asked : 0;
		if (!bytes && call->asked)
			count_lost(LOST_PART);
		break;
	case RETURNED_ALL_IF_ZERO:
		bytes = (u32)bytes ? 0 : call->asked;
		if (!bytes && call->asked)
			count_lost(LOST_PART);
		break;
	case RETURNED_LEFT:
		bytes = call->asked - bytes;
		break;
	case RETURNED_COPIED_INT:
		bytes = (s32)bytes > 0 ? (u32)bytes : 0;
		break;
	case RETURNED_NOTHING:
		bytes = call->asked;
		break;
	}
	if (call->pending)
		tally_as(call->role, call->site, call->direction, NO_SYSCALL, bytes, *caller);
	else
		count_here(ctx, call->site, call->direction, bytes, *caller, call->role);
	calls.delete(&key);
	return 0;
}
