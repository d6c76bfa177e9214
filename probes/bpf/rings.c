/*
 * Operations that a program hands to the kernel by a ring (io_uring), or by io_submit(2), and
 * that are performed at another time, and sometimes by another thread. Each stands where a system
 * call stands elsewhere: what it moves is its own, and so is what is copied in between. Only in a
 * meter that traces a program (FLOWS is defined).
 *
 * An operation begins, any number of times, in the function that performs it. What came of it is
 * known when it is completed, which may be at once, or later in any thread; one with several shots is
 * completed several times.
 *
 * Parameters in addition to flows.c's: MAX_OPERATIONS; RING_CALLS, AIO_CALLS, the numbers, among
 * those of system calls, of the first of each kind, and END_OF_RING_CALLS behind the last;
 * RING_SPLICE, RING_TEE, RING_RECVMSG, the numbers of these; the
 * offsets in records COMPLETED_RING, COMPLETED_REQUEST (0: the kernel does not tell), COMPLETED_DATA,
 * COMPLETED_RESULT, COMPLETED_FLAGS; and of members REQUEST_FILE, REQUEST_OPCODE, REQUEST_FLAGS,
 * REQUEST_RING, REQUEST_DATA, REQUEST_FD (0: not kept), SPLICE_FD, SPLICE_FLAGS, FIXED_FILES,
 * FIXED_BY_NODE, FIXED_NODE_FILE, KIOCB_FILE, MESSAGE_DATA (0: not known), MESSAGE_FLAGS,
 * MESSAGE_NAME, MESSAGE_CONTROL.
 */
struct operation {
	struct transfer transfer;
	u64 request;
	u32 number, process;
	u32 others;    /* further requests under the same key, which is the program's number */
	u32 ambiguous; /* they are not alike: a completion does not say whose it is */
};

BPF_HASH(operations, struct operation_key, struct operation, MAX_OPERATIONS);

/* Of a request; include/uapi/linux/io_uring.h: IOSQE_FIXED_FILE, IOSQE_CQE_SKIP_SUCCESS. */
#define FIXED_FILE (1 << 0)
#define NO_COMPLETION (1 << 6)
#define SPLICE_FIXED (1U << 31) /* SPLICE_F_FD_IN_FIXED */
#define SEVERAL_SHOTS (1 << 1) /* IORING_RECV_MULTISHOT */
#define RECVMSG_HEADER 16 /* struct io_uring_recvmsg_out */
#define MORE_COMPLETIONS (1 << 1) /* IORING_CQE_F_MORE */
/* The same stands there where the program's pages are still in use: IORING_OP_SEND_ZC, SENDMSG_ZC. */
#define IS_ZERO_COPY_SEND(number) ((number) - RING_CALLS - 47 < 2)
/* Where struct iocb has the operation, and the descriptor (include/uapi/linux/aio_abi.h). */
#define IOCB_OPCODE 16
#define IOCB_FD 20
/* Of an operation's row in transfer_calls: which of its files that is. */
#define OF_REQUEST 1
#define OF_SPLICE 2

static inline u32 ring_call(u8 opcode)
{
	u32 number = RING_CALLS + opcode;

	return number < END_OF_RING_CALLS ? number : END_OF_RING_CALLS - 1;
}

/* A file that a program has registered with its ring. */
static inline u64 fixed_file(u64 request, u32 index)
{
	u64 found = u64_at(u64_at(u64_at(request, REQUEST_RING), FIXED_FILES), 8 * (u64)index);

	if (FIXED_BY_NODE)
		found = u64_at(found, FIXED_NODE_FILE);
	return found & ~7ULL; /* flags are kept in the lowest bits */
}

/* The thread performs an operation: whatever it copies is for that one. */
static inline void operation_begins(struct thread *thread, struct operation_key *key,
				    struct operation *fresh, u64 file, u64 other, u32 flags)
{
	int index = fresh->number;
	struct transfer_call *call = transfer_calls.lookup(&index);
	struct operation *before = operations.lookup(key);
	struct transfer *transfer = &fresh->transfer;
	u32 descriptor = transfer->source_fd, ignored;

	transfer->source_fd = transfer->destination_fd = NO_DESCRIPTOR;
	if (call && call->told) {
		transfer->told = call->told;
		if (call->source == OF_SPLICE && other)
			look_at(thread, other, other >> 8, &transfer->source, &ignored);
		if (call->source == OF_REQUEST) {
			transfer->source_fd = descriptor;
			if (file)
				look_at(thread, file, file >> 8, &transfer->source,
					&transfer->direct);
		}
		if (call->destination == OF_REQUEST) {
			transfer->destination_fd = descriptor;
			if (file)
				look_at(thread, file, file >> 8, &transfer->destination,
					&transfer->direct);
		}
	}
	if (before && before->request == fresh->request && before->number == fresh->number) {
		/* Once more. The kernel may have put something else where the descriptor was. */
		transfer->source_fd = before->transfer.source_fd;
		transfer->destination_fd = before->transfer.destination_fd;
		before->transfer = *transfer;
	} else if (before && key->ring) {
		before->others++;
		if (before->number != fresh->number ||
		    !is_same(&before->transfer.source, &transfer->source) ||
		    !is_same(&before->transfer.destination, &transfer->destination))
			before->ambiguous = 1;
	} else if (operations.update(key, fresh)) {
		count_lost(LOST_FLOW);
	}
	if (flags & NO_COMPLETION && transfer->told)
		count_lost(LOST_COMPLETION);
	if (!thread->performs)
		thread->around = thread->syscall;
	thread->performs = 1;
	thread->syscall = fresh->number;
	thread->operation = *key;
	thread->transfer = *transfer;
}

static inline int operation_done(void)
{
	struct thread *thread = thread_known(bpf_get_current_pid_tgid());

	if (!thread || !thread->performs)
		return 0;
	thread->performs = 0;
	thread->syscall = thread->around;
	thread->transfer.told = 0;
	return 0;
}

/*
 * Of what IORING_OP_RECVMSG with several shots says that it has received: a header, and room for the
 * sender's address and for ancillary data (struct io_uring_recvmsg_out).
 */
static inline s64 without_header(struct operation *operation, s64 result)
{
	u64 message;
	s64 header;

	if (operation->number != RING_RECVMSG || !MESSAGE_DATA ||
	    !(u32_at(operation->request, MESSAGE_FLAGS) & SEVERAL_SHOTS))
		return result;
	message = u64_at(operation->request, MESSAGE_DATA);
	header = RECVMSG_HEADER + u32_at(message, MESSAGE_NAME) + u32_at(message, MESSAGE_CONTROL);
	return result > header ? result - header : 0;
}

static inline void completed(struct operation *operation, struct operation_key *key, s64 result,
			     bool more)
{
	struct moved moved = {.syscall = operation->number, .calls = 1};
	struct transfer *transfer = &operation->transfer;
	bool here = operation->process == bpf_get_current_pid_tgid() >> 32;

	result = without_header(operation, result);
	moved.bytes = result;
	if (operation->ambiguous && result > 0)
		count_lost(LOST_COMPLETION);
	if (transfer->told && result > 0 && !operation->ambiguous) {
		if (transfer->source_fd != NO_DESCRIPTOR || transfer->source.kind) {
			moved.object = transfer->source;
			moved.descriptor = transfer->source_fd;
			moved.way = WAY_IN | transfer->direct;
			add_running(moved.syscall, RUNNING_IN, result, here);
			add_flow(&moved, operation->process);
		}
		if (transfer->destination_fd != NO_DESCRIPTOR || transfer->destination.kind) {
			moved.object = transfer->destination;
			moved.descriptor = transfer->destination_fd;
			moved.way = WAY_OUT | transfer->direct;
			add_running(moved.syscall, RUNNING_OUT, result, here);
			add_flow(&moved, operation->process);
		}
	}
	if (more && !IS_ZERO_COPY_SEND(operation->number))
		return;
	if (operation->others)
		operation->others--;
	else
		operations.delete(key);
}

/* Entry of io_issue_sqe(request, ...), io_poll_issue(the same): an operation of io_uring begins. */
static inline int ring_begins(u64 request)
{
	struct thread *thread = open_thread();
	struct operation fresh = {.request = request};
	struct operation_key key = {.request = request};
	u32 flags, descriptor = NO_DESCRIPTOR;
	u64 file, other = 0, behind;

	if (!thread || thread->role != ROLE_PROGRAM)
		return 0;
	if (!COMPLETED_REQUEST) {
		key.ring = u64_at(request, REQUEST_RING);
		key.request = u64_at(request, REQUEST_DATA);
	}
	fresh.number = ring_call(u32_at(request, REQUEST_OPCODE));
	fresh.process = thread->process;
	flags = u32_at(request, REQUEST_FLAGS);
	file = u64_at(request, REQUEST_FILE);
	if (flags & FIXED_FILE) {
		if (!file)
			file = fixed_file(request, u32_at(request, REQUEST_FD));
	} else if (REQUEST_FD) {
		descriptor = u32_at(request, REQUEST_FD);
		behind = file_of(descriptor);
		if (!file)
			file = behind;
		else if (file != behind)
			descriptor = NO_DESCRIPTOR;
	}
	if (fresh.number == RING_SPLICE || fresh.number == RING_TEE) {
		u32 from = u32_at(request, SPLICE_FD);

		other = u32_at(request, SPLICE_FLAGS) & SPLICE_FIXED ? fixed_file(request, from)
								      : file_of(from);
	}
	fresh.transfer.source_fd = descriptor;
	operation_begins(thread, &key, &fresh, file, other, flags);
	return 0;
}

int on_ring_begun(struct pt_regs *ctx)
{
	return ring_begins(ctx->di);
}

int on_fentry_ring_begun(void *ctx)
{
	return ring_begins(arguments_of(ctx).di);
}

/* Return of the same, and of the next. */
int on_operation_done(struct pt_regs *ctx)
{
	return operation_done();
}

int on_fexit_operation_done(void *ctx)
{
	return operation_done();
}

/* Entry of aio_read(kiocb, iocb, ...) and aio_write(the same). */
static inline int aio_begins(u64 kiocb, u64 iocb)
{
	struct thread *thread = open_thread();
	struct operation fresh = {.request = kiocb};
	struct operation_key key = {.request = kiocb};

	if (!thread || thread->role != ROLE_PROGRAM)
		return 0;
	fresh.number = AIO_CALLS + (u16_at(iocb, IOCB_OPCODE) & 15);
	fresh.process = thread->process;
	fresh.transfer.source_fd = u32_at(iocb, IOCB_FD);
	operation_begins(thread, &key, &fresh, u64_at(kiocb, KIOCB_FILE), 0, 0);
	return 0;
}

int on_aio_begun(struct pt_regs *ctx)
{
	return aio_begins(ctx->di, ctx->si);
}

int on_fentry_aio_begun(void *ctx)
{
	struct arguments arguments = arguments_of(ctx);

	return aio_begins(arguments.di, arguments.si);
}

/* Entry of aio_complete_rw(kiocb, result, ...), in a softirq on top of anybody's thread, too. */
static inline int aio_completes(u64 kiocb, s64 result)
{
	struct operation_key key = {.request = kiocb};
	struct operation *operation = operations.lookup(&key);

	if (operation)
		completed(operation, &key, result, false);
	return 0;
}

int on_aio_completed(struct pt_regs *ctx)
{
	return aio_completes(ctx->di, ctx->si);
}

int on_fentry_aio_completed(void *ctx)
{
	struct arguments arguments = arguments_of(ctx);

	return aio_completes(arguments.di, arguments.si);
}

/*
 * Tracepoint io_uring:io_uring_complete: an operation has come to an end, or to one of several.
 * Only those that move no bytes are counted here: the others are when their bytes are.
 */
int on_ring_completed(void *ctx)
{
	struct thread *thread = open_thread();
	s64 result = *(s32 *)(ctx + COMPLETED_RESULT);
	bool more = *(u32 *)(ctx + COMPLETED_FLAGS) & MORE_COMPLETIONS;
	struct operation_key key = {};
	struct operation *operation;
	struct object_key unknown = {};
	struct transfer_call *call;
	u64 request = 0;
	int index;

	if (COMPLETED_REQUEST) {
		request = *(u64 *)(ctx + COMPLETED_REQUEST);
		key.request = request;
		if (!request) {
			/* One of several, in the middle of the operation. */
			if (!thread || !thread->performs)
				return 0;
			key = thread->operation;
			more = true;
		}
	} else {
		key.ring = *(u64 *)(ctx + COMPLETED_RING);
		key.request = *(u64 *)(ctx + COMPLETED_DATA);
	}
	operation = operations.lookup(&key);
	if (operation) {
		index = operation->number;
		if (!operation->transfer.told)
			tally_as(ROLE_PROGRAM, SITE_RING_COMPLETED, 0, index, 0, 0);
		completed(operation, &key, result, more);
		return 0;
	}
	/* It began before the tracing. */
	if (!thread || thread->role != ROLE_PROGRAM || result <= 0)
		return 0;
	if (!request) {
		count_lost(LOST_COMPLETION);
		return 0;
	}
	index = ring_call(u32_at(request, REQUEST_OPCODE));
	call = transfer_calls.lookup(&index);
	if (!call || !call->told)
		return 0;
	if (call->source)
		flowed(thread, &unknown, NO_DESCRIPTOR, index, WAY_IN, result);
	if (call->destination)
		flowed(thread, &unknown, NO_DESCRIPTOR, index, WAY_OUT, result);
	return 0;
}
