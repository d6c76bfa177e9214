/*
 * The meter: counts copies, mode switches, page faults, context switches and interrupts.
 *
 * The collector hands BCC settings.h, registers.h, direction.h, window.c, for a traced program
 * threads.c, tally.c, calls.c, owner.c, devices.c, for a traced program compat.c, flows.c and rings.c,
 * transforms.c, copies.c, for a program's own functions user_memory.c, and this file as one text,
 * in this order: BCC rewrites map accesses in the text it is given, not in headers.
 *
 * Nothing here is attached by its name; the collector attaches each function as
 * the plan says. Parameters come by -D:
 *
 *	MARKER_*, SCOPE_*         the marker system call (workloads/marker.py)
 *	USER_TO_KERNEL, ...       numbers of directions
 *	LOST_*, LOST_CAUSES       why something was not counted
 *	NO_SYSCALL                the number of none
 *	ROLE_UNATTRIBUTED              a bit that no role has
 *	ROLE_TAPPED                    another one
 *	IS_TRACKED(role)          whether a role's pending work is looked out for
 *	MAX_SITES, MAX_TALLIES, MAX_WINDOWS, MAX_THREADS
 *	MAX_CALL_SITES, TASK_MM, ITER_TYPE_*, IS_*_ITER(type), RETURNED_*   (window.c, calls.c)
 *	SKB_*, SHINFO_*, SOCK_NET, DEVICE_*, NET_INODE, MAX_OWNERS, END_SUBJECT
 *	TAP_SOCK, SOCKET_SOCK                                               (owner.c)
 *	PEER_OF(role)             who is at the other end                   (owner.c)
 *	MAX_REQUESTS, MAX_MAPPINGS, SCATTER_*                               (devices.c)
 *	REGISTER_*, AMOUNT_*                                                (copies.c)
 *	SYSCALL_ENTER_ID, SYSCALL_ENTER_ARGS,
 *	FORK_CHILD_PID, SWITCH_PREV_STATE, EXEC_FORMER_THREAD
 *	                          byte offsets in the tracepoints' records
 *
 * Settings (settings.h), which differ from one run or one kernel's start to the next:
 *
 *	NONCE                     the marker's
 *	MERGE_START, MERGE_SIZE   where skb_try_coalesce is
 *	ROUTINE_SITE              the number of the routine under user copies; -1: there is none
 *	SITE_SYSCALL_ENTER, ...   the catalogue's numbers of the event sites
 *	PLACE_*                   of one place                              (copies.c)
 */

static inline int happened(u32 site)
{
	u32 role = open_role();

	if (role)
		tally_as(role, site, 0, syscall_here(), 0, 0);
	return 0;
}

/*
 * A strategy's children count as long as its window is open, and so do those of a traced program
 * that marks its window by itself, with their own: all have the window's origin. Those of other
 * traced programs go on when the one that started them has ended, and some of them may still
 * have to begin.
 */
#ifdef FLOWS
#define ORIGIN_OF_MARKED(scope, key) ((scope) == SCOPE_PROCESS ? (key) : 0)
#define ORIGIN_OF_CHILD(parent, process) ((parent)->origin)
#define IS_COUNTING(parent) (!(parent)->awaits_exec && (parent)->opener != ABOUT_TO_OPEN)
#else
#define ORIGIN_OF_MARKED(scope, key) 0
#define ORIGIN_OF_CHILD(parent, process) ((parent)->origin ? (parent)->origin : (process))
#define IS_COUNTING(parent) 1
#endif

static inline void obey_marker(u64 *arguments)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 thread = id, operation = arguments[2], scope = arguments[4];
	u64 key = scope == SCOPE_THREAD ? THREAD_KEY(thread) : id >> 32;
	int first = 0;
	u64 *pending = tracked_role.lookup(&first);

	u64 memory = memory_here();

	if (operation == MARKER_OPEN) {
		struct window window = {
			.role = arguments[3], .scope = scope, .opener = thread,
			.origin = ORIGIN_OF_MARKED(scope, key),
		};
		struct window borrowed = {.origin = key, .role = window.role, .scope = scope};

		if (windows.update(&key, &window))
			count_lost(LOST_WINDOW);
		else if (pending && IS_TRACKED(window.role))
			*pending = window.role;
		if (memory && scope == SCOPE_PROCESS && windows.update(&memory, &borrowed))
			count_lost(LOST_WINDOW);
	} else if (operation == MARKER_OPEN_AT_EXEC) {
		struct window window = {
			.role = arguments[3], .scope = scope, .opener = thread, .awaits_exec = 1,
		};

		if (windows.update(&key, &window))
			count_lost(LOST_WINDOW);
		else if (pending && IS_TRACKED(window.role))
			*pending = window.role;
	} else if (operation == MARKER_CLOSE) {
		windows.delete(&key);
		if (scope == SCOPE_PROCESS)
			windows.delete(&memory);
	} else if (operation == MARKER_SETTLED && pending) {
		*pending = 0;
	}
	windows_changed();
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
#ifdef FLOWS
	struct thread *of;
#else
	struct window *window;
#endif

	if (number == SYS_PRCTL) {
		u64 arguments[5] = {};

		bpf_probe_read_kernel(arguments, sizeof(arguments), ctx + SYSCALL_ENTER_ARGS);
		if (arguments[0] == MARKER_OPTION && arguments[1] == NONCE) {
			obey_marker(arguments);
			return 0;
		}
	}
#ifdef FLOWS
	of = open_thread();
	if (of) {
		number = call_number(number, ctx + SYSCALL_ENTER_ARGS);
		of->syscall = number;
		called_of(of, number)->enters++;
		if (of->role == ROLE_PROGRAM)
			transfer_begins(of, number, ctx);
		return 0;
	}
	if (reads_for_itself(number)) {
#else
	window = window_here();
	if (is_open(window)) {
		if (syscall_of.update(&thread, &number))
			count_lost(LOST_SYSCALL);
		tally_as(window->role, SITE_SYSCALL_ENTER, 0, number, 0, 0);
	} else if (!window && reads_for_itself(number)) {
#endif
		/* Also before there is any window: it may last until there is one. */
		if (syscall_of.update(&thread, &number))
			count_lost(LOST_SYSCALL);
	}
	return 0;
}

/*
 * At the exit of a system call in a thread without an open window, which may be opening: it is
 * when the call has returned that opens it.
 */
static inline void exits_unopened(u32 thread, u32 number, struct window *window)
{
	if (!window) {
		if (reads_for_itself(number))
			syscall_of.delete(&thread);
	} else if (window->opener == thread && !window->awaits_exec) {
		window->opener = 0;
		windows_changed();
	}
}

/* Tracepoint raw_syscalls:sys_exit: +1 is one crossing back to user mode. */
int on_sys_exit(void *ctx)
{
	u32 thread = bpf_get_current_pid_tgid();
	struct window *window;
#ifdef FLOWS
	struct thread *of = thread_or_window(&window);

	if (!of) {
		exits_unopened(thread, *(s64 *)(ctx + SYSCALL_EXIT_ID), window);
		return 0;
	}
	if (of->role == ROLE_PROGRAM)
		transfer_ends(of, ctx);
	called_of(of, of->syscall)->exits++;
	of->syscall = NO_SYSCALL;
#else
	u32 *number;

	window = window_here();
	if (!is_open(window)) {
		exits_unopened(thread, *(s64 *)(ctx + SYSCALL_EXIT_ID), window);
		return 0;
	}
	number = syscall_of.lookup(&thread);
	tally_as(window->role, SITE_SYSCALL_EXIT, 0, number ? *number : NO_SYSCALL, 0, 0);
	syscall_of.delete(&thread);
#endif
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
#ifdef FLOWS
	begins_anew(child);
#endif
	if (parent && parent->scope == SCOPE_PROCESS && IS_COUNTING(parent)) {
		struct window window = {
			.origin = ORIGIN_OF_CHILD(parent, process),
			.role = parent->role, .scope = SCOPE_PROCESS,
		};

		if (windows.update(&child, &window))
			count_lost(LOST_WINDOW);
	} else {
		windows.delete(&child);
	}
	return 0;
}

/* Processors that have gone off or on since the meter was attached. */
BPF_HASH(changed_cpus, u32, u32, MAX_CPUS);

/*
 * Tracepoint cpuhp:cpuhp_enter: a step of a processor going offline, or online. The kernel then
 * removes the events that are limited to this processor, for good and silently
 * (perf_event_exit_cpu in kernel/events/core.c).
 */
int on_cpu_changed(void *ctx)
{
	u32 cpu = *(u32 *)(ctx + HOTPLUG_CPU), yes = 1;

	changed_cpus.update(&cpu, &yes);
	return 0;
}

#ifdef FLOWS
/*
 * Tracepoint sched:sched_process_exec: the process has become another program, by whichever of
 * its threads, which is its first from then on. That one has the number of the first now, which
 * has ended, and is in the same system call still.
 */
int on_process_exec(void *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), process = id >> 32, key;
	u32 thread = id, former = *(u32 *)(ctx + EXEC_FORMER_THREAD);
	struct window *window = windows.lookup(&process);

	if (former != thread) {
		syscall_of.delete(&former);
		renumbered(former, thread);
	}
#if defined(OWN_MEMORY)
	if (window_here())
		has_become();
#elif defined(STACKS)
	struct object_key unused = {};

	if (window)
		noted_program(&unused);
#endif
	if (!window)
		return 0;
	note_stray();
	window->awaits_exec = 0;
	if (former != thread) {
		key = former;
		windows.delete(&key);
	}
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
	if (windows.lookup(&process))
		note_stray();
	/* Not when counting has ended: the collector may be reading it. */
	if (open_role())
		thread_ends(thread);
	if (key != process)
		windows.delete(&key);
	if (!u32_at(u64_at(task, TASK_SIGNAL), SIGNAL_LIVE)) {
		windows.delete(&process);
#ifdef OWN_MEMORY
		program_ends();
#endif
	}
	return 0;
}

#define CGROUP_PATH_BYTES 256

struct joined {
	u32 hierarchy;
	char path[CGROUP_PATH_BYTES]; /* from the hierarchy's root */
};

/* Cgroups that threads with a window were moved to, by number. */
BPF_HASH(joined, u64, struct joined, 1024);

/* Tracepoint cgroup:cgroup_attach_task: somebody moves a thread into a cgroup. */
int on_cgroup_changed(void *ctx)
{
	u32 thread = *(u32 *)(ctx + ATTACH_PID);
	u64 key = thread, id = *(u64 *)(ctx + ATTACH_ID);
	struct joined to = {.hierarchy = *(u32 *)(ctx + ATTACH_HIERARCHY)};

	if (!thread_known(thread) && !windows.lookup(&key))
		return 0;
	/* Where the path is stands in the record, in the lower half. */
	bpf_probe_read_kernel_str(to.path, sizeof(to.path),
				  ctx + (*(u32 *)(ctx + ATTACH_PATH) & 0xffff));
	if (joined.update(&id, &to))
		count_lost(LOST_WINDOW);
	return 0;
}

#define MODULE_NAME_BYTES 56 /* MODULE_NAME_LEN of 64-bit kernels (include/linux/moduleparam.h) */

struct module_name {
	char text[MODULE_NAME_BYTES];
};

/* Modules that were loaded, and the thread that each was loaded by. */
BPF_HASH(loaded_modules, struct module_name, u64, 1024);

/* The name of the module that an event is of: where it is stands in the record, in the lower half. */
static inline void read_module_name(void *ctx, u32 at, struct module_name *module)
{
	bpf_probe_read_kernel_str(module->text, sizeof(module->text),
				  ctx + (*(u32 *)(ctx + at) & 0xffff));
}

/* Tracepoint module:module_load: a module is there, and will be initialized. */
int on_module_loaded(void *ctx)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct module_name module = {};

	read_module_name(ctx, MODULE_LOADED_NAME, &module);
	if (loaded_modules.update(&module, &thread))
		count_lost(LOST_WINDOW);
	return 0;
}

/*
 * Tracepoint module:module_free: a module has gone. Its loader removes it if it could not be
 * initialized, as a driver whose hardware is missing: it was never used.
 */
int on_module_freed(void *ctx)
{
	struct module_name module = {};
	u64 *thread;

	read_module_name(ctx, MODULE_FREED_NAME, &module);
	thread = loaded_modules.lookup(&module);
	if (thread && *thread == bpf_get_current_pid_tgid())
		loaded_modules.delete(&module);
	return 0;
}
#endif
