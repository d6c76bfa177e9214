/*
 * The meter: counts copies, mode switches, page faults, context switches and interrupts.
 *
 * The collector hands BCC registers.h, direction.h, window.c, tally.c, calls.c, owner.c,
 * devices.c, for a traced program flows.c, and this file as one text, in this order: BCC
 * rewrites map accesses in the text it is given, not in headers.
 *
 * Nothing here is attached by its name; the collector attaches each function as
 * the plan says. Parameters come by -D:
 *
 *	MARKER_OPTION, NONCE      the marker system call (window.c)
 *	ROLE_OUTSIDE              a bit that no role has
 *	IS_WATCHED(role)          whether a role's unsettled work is looked out for
 *	MAX_SITES, MAX_TALLIES, MAX_WINDOWS, MAX_THREADS
 *	MAX_CALL_SITES, TASK_MM, ITER_TYPE_*, IS_*_ITER(type)    (window.c, calls.c)
 *	SKB_*, SHINFO_*, SOCK_NET, DEVICE_*, NET_INODE, MERGE_*, MAX_OWNERS
 *	PEER_OF(role)             who is at the other end                   (owner.c)
 *	MAX_REQUESTS, MAX_MAPPINGS, SCATTER_*                               (devices.c)
 *	BREAKPOINT_n              SITE, LENGTH, FROM, TO of hardware breakpoint n (0..3)
 *	FENTRY_n or KPROBE_n      SITE, LENGTH, DIRECTION, SKB, START, SIZE of the n-th function
 *	                          (0..7) that calls, or is probed at, its entry: its own first
 *	                          address and size
 *	SITE_SYSCALL_ENTER, ...   the catalogue's numbers of the event sites
 *	SYSCALL_ENTER_ID, SYSCALL_ENTER_ARGS,
 *	FORK_CHILD_PID, SWITCH_PREV_STATE, EXEC_FORMER_THREAD
 *	                          byte offsets in the tracepoints' records
 *
 * LENGTH, FROM, TO and SKB are expressions over `ctx`, or over `entered` of FENTRY_n; FROM
 * and TO are 0 where the direction does not depend on the addresses, SKB is 0 where there
 * is no socket buffer.
 */

/*
 * A copy of user memory, at a breakpoint: `length` bytes moved. At a return instruction
 * that is what was really copied; at an entry, what was asked for.
 */
static inline int copied(void *ctx, struct pt_regs *registers, u32 site, u64 length, u64 from,
			 u64 to)
{
	u64 caller = 0;

	hit(site);
	/* Of what stands at its beginning, so that the stack begins with who called it. */
	if (from)
		caller = u64_at(registers->sp, 0);
	count_here(ctx, site, direction_between(from, to), length, caller, window_here());
	return 0;
}

/*
 * A copy at the entry of a function that is watched: `length` bytes asked for. A
 * function that calls itself for the parts of a socket buffer has counted them already.
 */
static inline int copied_inside(void *ctx, u64 caller, u32 site, u64 length, u32 direction,
				u64 skb, u64 start, u64 size)
{
	hit(site);
	if (!length || caller - start < size)
		return 0;
	if (direction == KERNEL_TO_KERNEL)
		count_anywhere(ctx, site, direction, length, caller,
			       skb ? owner_of_copy(skb, caller) : 0);
	else
		count_here(ctx, site, direction, length, caller, window_here());
	return 0;
}

/*
 * What a program finds that a function calls at its entry: the function's arguments, as many
 * as it has, and above them on the stack the trampoline's own words and the two addresses to
 * return to, the function's and its caller's. How many words lie in between is up to the
 * kernel (arch_prepare_bpf_trampoline in arch/x86/net/bpf_jit_comp.c).
 */
struct entered {
	u64 di, si, dx, cx, r8, r9;
	u64 more[8];
};

#define ENTERED_WORDS (sizeof(struct entered) / 8)
#define LONGEST_CALL 16 /* endbr64, and a call of five bytes */

/* The address behind the call of the function at `start`; 0 if it is not there. */
static inline u64 caller_of(struct entered *entered, u64 start)
{
	u64 *words = (u64 *)entered, caller = 0;

#pragma unroll
	for (int i = 1; i < ENTERED_WORDS - 1; i++)
		if (!caller && words[i] - start - 1 < LONGEST_CALL)
			caller = words[i + 1];
	return caller;
}

static inline int copied_by_call(void *ctx, struct entered *entered, u32 site, u64 length,
				 u32 direction, u64 skb, u64 start, u64 size)
{
	u64 caller = caller_of(entered, start);

	/* Whether it has called itself is not known then. */
	if (!caller)
		lose(LOST_CALL);
	return copied_inside(ctx, caller, site, length, direction, skb, start, size);
}

/* A second macro level, so that the parameters expand to their arguments first. */
#define COPIED(...) copied(ctx, &ctx->regs, __VA_ARGS__)
#define COPIED_INSIDE(...) copied_inside(ctx, u64_at(ctx->sp, 0), __VA_ARGS__)
#define COPIED_BY_CALL(...) \
	({ \
		struct entered entered = {}; \
		if (bpf_probe_read_kernel(&entered, sizeof(entered), ctx)) \
			lose(LOST_CALL); \
		else \
			copied_by_call(ctx, &entered, __VA_ARGS__); \
		0; \
	})

#ifdef BREAKPOINT_0
int on_breakpoint_0(struct bpf_perf_event_data *ctx)
{
	return COPIED(BREAKPOINT_0);
}
#endif

#ifdef BREAKPOINT_1
int on_breakpoint_1(struct bpf_perf_event_data *ctx)
{
	return COPIED(BREAKPOINT_1);
}
#endif

#ifdef BREAKPOINT_2
int on_breakpoint_2(struct bpf_perf_event_data *ctx)
{
	return COPIED(BREAKPOINT_2);
}
#endif

#ifdef BREAKPOINT_3
int on_breakpoint_3(struct bpf_perf_event_data *ctx)
{
	return COPIED(BREAKPOINT_3);
}
#endif

#ifdef FENTRY_0
int on_fentry_0(void *ctx)
{
	return COPIED_BY_CALL(FENTRY_0);
}
#elif defined(KPROBE_0)
int on_kprobe_0(struct pt_regs *ctx)
{
	return COPIED_INSIDE(KPROBE_0);
}
#endif

#ifdef FENTRY_1
int on_fentry_1(void *ctx)
{
	return COPIED_BY_CALL(FENTRY_1);
}
#elif defined(KPROBE_1)
int on_kprobe_1(struct pt_regs *ctx)
{
	return COPIED_INSIDE(KPROBE_1);
}
#endif

#ifdef FENTRY_2
int on_fentry_2(void *ctx)
{
	return COPIED_BY_CALL(FENTRY_2);
}
#elif defined(KPROBE_2)
int on_kprobe_2(struct pt_regs *ctx)
{
	return COPIED_INSIDE(KPROBE_2);
}
#endif

#ifdef FENTRY_3
int on_fentry_3(void *ctx)
{
	return COPIED_BY_CALL(FENTRY_3);
}
#elif defined(KPROBE_3)
int on_kprobe_3(struct pt_regs *ctx)
{
	return COPIED_INSIDE(KPROBE_3);
}
#endif

#ifdef FENTRY_4
int on_fentry_4(void *ctx)
{
	return COPIED_BY_CALL(FENTRY_4);
}
#elif defined(KPROBE_4)
int on_kprobe_4(struct pt_regs *ctx)
{
	return COPIED_INSIDE(KPROBE_4);
}
#endif

#ifdef FENTRY_5
int on_fentry_5(void *ctx)
{
	return COPIED_BY_CALL(FENTRY_5);
}
#elif defined(KPROBE_5)
int on_kprobe_5(struct pt_regs *ctx)
{
	return COPIED_INSIDE(KPROBE_5);
}
#endif

#ifdef FENTRY_6
int on_fentry_6(void *ctx)
{
	return COPIED_BY_CALL(FENTRY_6);
}
#elif defined(KPROBE_6)
int on_kprobe_6(struct pt_regs *ctx)
{
	return COPIED_INSIDE(KPROBE_6);
}
#endif

#ifdef FENTRY_7
int on_fentry_7(void *ctx)
{
	return COPIED_BY_CALL(FENTRY_7);
}
#elif defined(KPROBE_7)
int on_kprobe_7(struct pt_regs *ctx)
{
	return COPIED_INSIDE(KPROBE_7);
}
#endif

static inline int happened(u32 site)
{
	struct window *window = window_here();

	if (is_open(window))
		tally_as(window->role, site, 0, syscall_here(), 0, 0);
	return 0;
}

static inline void obey_marker(u64 *arguments)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 thread = id, operation = arguments[2], scope = arguments[4];
	u64 key = scope == SCOPE_THREAD ? THREAD_KEY(thread) : id >> 32;
	int first = 0;
	u64 *unsettled = watching.lookup(&first);

	u64 memory = memory_here();

	if (operation == MARKER_OPEN) {
		struct window window = {
			.role = arguments[3], .scope = scope, .opener = thread,
		};
		struct window borrowed = {.origin = key, .role = window.role, .scope = scope};

		if (windows.update(&key, &window))
			lose(LOST_WINDOW);
		else if (unsettled && IS_WATCHED(window.role))
			*unsettled = window.role;
		if (memory && scope == SCOPE_PROCESS && windows.update(&memory, &borrowed))
			lose(LOST_WINDOW);
	} else if (operation == MARKER_OPEN_AT_EXEC) {
		struct window window = {
			.role = arguments[3], .scope = scope, .opener = thread, .awaits_exec = 1,
		};

		if (windows.update(&key, &window))
			lose(LOST_WINDOW);
		else if (unsettled && IS_WATCHED(window.role))
			*unsettled = window.role;
	} else if (operation == MARKER_CLOSE) {
		windows.delete(&key);
		if (scope == SCOPE_PROCESS)
			windows.delete(&memory);
	} else if (operation == MARKER_SETTLED && unsettled) {
		*unsettled = 0;
	}
}

/*
 * Tracepoint raw_syscalls:sys_enter: +1 is one crossing from user to kernel mode by
 * system call. Blind to vDSO calls, which do not cross.
 *
 * Not the raw tracepoint of the same name, although that is cheaper: kernels of the 7.x
 * series run a raw tracepoint's program with preemption enabled, and when its thread is
 * preempted in there, the same program is skipped for every other thread on that
 * processor. The tracepoint's program runs with preemption disabled on all kernels.
 */
int on_sys_enter(void *ctx)
{
	u32 number = *(s64 *)(ctx + SYSCALL_ENTER_ID), thread = bpf_get_current_pid_tgid();
	struct window *window;

	if (number == SYS_PRCTL) {
		u64 arguments[5] = {};

		bpf_probe_read_kernel(arguments, sizeof(arguments), ctx + SYSCALL_ENTER_ARGS);
		if (arguments[0] == MARKER_OPTION && arguments[1] == NONCE) {
			obey_marker(arguments);
			return 0;
		}
	}
	window = window_here();
	if (is_open(window)) {
		if (syscall_of.update(&thread, &number))
			lose(LOST_SYSCALL);
		tally_as(window->role, SITE_SYSCALL_ENTER, 0, number, 0, 0);
#ifdef FLOWS
		if (window->role == ROLE_PROGRAM)
			transfer_begins(number, ctx);
#endif
	}
	return 0;
}

/* Tracepoint raw_syscalls:sys_exit: +1 is one crossing back to user mode. */
int on_sys_exit(void *ctx)
{
	u32 thread = bpf_get_current_pid_tgid();
	struct window *window = window_here();
	u32 *number;

	if (!window)
		return 0;
	if (window->opener) {
		if (window->opener == thread && !window->awaits_exec)
			window->opener = 0;
		return 0;
	}
#ifdef FLOWS
	if (window->role == ROLE_PROGRAM)
		transfer_ends(ctx);
#endif
	number = syscall_of.lookup(&thread);
	tally_as(window->role, SITE_SYSCALL_EXIT, 0, number ? *number : NO_SYSCALL, 0, 0);
	syscall_of.delete(&thread);
	return 0;
}

/* Tracepoint exceptions:page_fault_user: +1 is a fault taken in user mode, one pair of switches. */
int on_page_fault_user(void *ctx)
{
	return happened(SITE_PAGE_FAULT_USER);
}

/* Tracepoint exceptions:page_fault_kernel: +1 is a fault inside the kernel; no mode switch. */
int on_page_fault_kernel(void *ctx)
{
	return happened(SITE_PAGE_FAULT_KERNEL);
}

#ifndef FLOWS
/*
 * Tracepoints of interrupts: +1 is one that came while the thread was running. Those that
 * come while one of these programs runs are passed over by the kernel.
 */
int on_interrupt_device(void *ctx)
{
	return happened(SITE_INTERRUPT_DEVICE);
}

int on_interrupt_timer(void *ctx)
{
	return happened(SITE_INTERRUPT_TIMER);
}

int on_interrupt_reschedule(void *ctx)
{
	return happened(SITE_INTERRUPT_RESCHEDULE);
}

int on_interrupt_call(void *ctx)
{
	return happened(SITE_INTERRUPT_CALL);
}

int on_interrupt_call_single(void *ctx)
{
	return happened(SITE_INTERRUPT_CALL_SINGLE);
}

int on_interrupt_work(void *ctx)
{
	return happened(SITE_INTERRUPT_WORK);
}
#endif

/*
 * Tracepoint sched:sched_switch, in the context of the thread that gives up the
 * CPU: +1 is one context switch away from it. The record's prev_state is 0 for a
 * thread that could have gone on (it yielded) and has TASK_REPORT_MAX set for one
 * that was preempted: both are involuntary, as the kernel's own nivcsw has it.
 */
int on_sched_switch(void *ctx)
{
	u64 state = *(u64 *)(ctx + SWITCH_PREV_STATE);

	if (state == 0 || state & SWITCH_PREEMPTED)
		return happened(SITE_SWITCH_INVOLUNTARY);
	return happened(SITE_SWITCH_VOLUNTARY);
}

/*
 * A strategy's children count as long as its window is open. A traced program's go on
 * when the one that started them has ended, and some of it may still have to begin.
 */
#ifdef FLOWS
#define ORIGIN_OF_CHILD(parent, process) 0
#define IS_COUNTING(parent) (!(parent)->awaits_exec)
#else
#define ORIGIN_OF_CHILD(parent, process) ((parent)->origin ? (parent)->origin : (process))
#define IS_COUNTING(parent) 1
#endif

/*
 * Tracepoint sched:sched_process_fork, in the parent's context: what a process
 * with a window starts belongs to that window. A number that is used again by a
 * stranger must not inherit it.
 */
int on_process_fork(void *ctx)
{
	u64 process = bpf_get_current_pid_tgid() >> 32;
	struct window *parent = windows.lookup(&process);
	u64 child = *(u32 *)(ctx + FORK_CHILD_PID), thread = THREAD_KEY(child);

	windows.delete(&thread);
	if (parent && parent->scope == SCOPE_PROCESS && IS_COUNTING(parent)) {
		struct window window = {
			.origin = ORIGIN_OF_CHILD(parent, process),
			.role = parent->role, .scope = SCOPE_PROCESS,
		};

		if (windows.update(&child, &window))
			lose(LOST_WINDOW);
	} else {
		windows.delete(&child);
	}
	return 0;
}

#ifdef FLOWS
/* A thread has the number of its process's first now, and is in the same system call still. */
static inline void became_first(u32 former, u32 thread)
{
	u32 *number = syscall_of.lookup(&former);
	u64 key = former;

	windows.delete(&key);
	if (number) {
		u32 same = *number;

		syscall_of.delete(&former);
		if (syscall_of.update(&thread, &same))
			lose(LOST_SYSCALL);
	}
}

/*
 * Tracepoint sched:sched_process_exec: the process has become another program, by whichever of
 * its threads, which is its first from then on.
 */
int on_process_exec(void *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), process = id >> 32;
	u32 thread = id, former = *(u32 *)(ctx + EXEC_FORMER_THREAD);
	struct window *window = windows.lookup(&process);

	if (!window)
		return 0;
	window->awaits_exec = 0;
	if (former != thread)
		became_first(former, thread);
#ifdef STACKS
	noted_program();
#endif
	return 0;
}

/*
 * Tracepoint sched:sched_process_exit, in the context of a thread that ends: what was kept
 * for it is given back, and with the last one the process's window, so that tables stay
 * small however long the tracing takes. What the kernel does for it behind this is lost:
 * closing files, which copies no payload.
 */
int on_process_exit(void *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), process = id >> 32;
	u32 thread = id;
	u64 task = bpf_get_current_task(), key = thread;

	syscall_of.delete(&thread);
	transfers.delete(&thread);
	if (key != process)
		windows.delete(&key);
	if (!u32_at(u64_at(task, TASK_SIGNAL), SIGNAL_LIVE))
		windows.delete(&process);
	return 0;
}
#endif
