/*
 * Windows: whose copies are being counted, and as what.
 *
 * A program opens a window with a system call that is otherwise an error,
 *
 *	prctl(MARKER, nonce, OPEN, role, scope)
 *
 * and closes it with prctl(MARKER, nonce, CLOSE, role, scope). The window begins
 * when the opening call returns and ends when the closing call is entered, so
 * neither is part of it. The nonce belongs to one run of the tracer: no
 * prctl of another program can open a window.
 *
 * What a program sets in motion may be copied later, by a softirq on top of
 * whatever thread is there. From the opening of a window with a tracked role until
 * prctl(MARKER, nonce, SETTLED, role, scope), copies inside the kernel that happen
 * anywhere else are kept apart under that role (tally.c).
 *
 * Scope THREAD is the calling thread alone. Scope PROCESS is every thread of the
 * calling process and every process it starts while the window is open. Scope ALONE is
 * every thread of the process, and none that it starts.
 *
 * The collector may mark a process, without an opener, as one whose window is about to open: then
 * copies that its threads have begun are known when the window opens.
 *
 * OPEN_AT_EXEC is for a program that is traced as a whole: the window begins when the
 * calling process has become another program, and the system call that made it so
 * returns.
 */
#define SYS_PRCTL 157 /* x86-64; arch/x86/entry/syscalls/syscall_64.tbl */
#define SYS_EXECVE 59
#define SYS_FINIT_MODULE 313
#define SYS_EXECVEAT 322

/* A thread's key never equals a process's: bit 32 tells them apart. */
#define THREAD_KEY(tid) ((1ULL << 32) | (tid))

#define ABOUT_TO_OPEN 0xffffffff

struct window {
	u64 origin;  /* key of the window that a process, or memory, belongs to; its own, or 0: this */
	u32 role;    /* what the collector called it when it was opened */
	u32 scope;
	u32 opener;  /* tid that is still inside the opening call, or ABOUT_TO_OPEN; 0: it is open */
	u32 awaits_exec; /* the opening call is an exec that is still to come */
};

BPF_HASH(windows, u64, struct window, MAX_WINDOWS);
/*
 * The system call that each thread with a window is inside of (of a traced program: threads.c);
 * of others those in which the kernel reads a file for itself (reads_for_itself()).
 */
BPF_HASH(syscall_of, u32, u32, MAX_THREADS);
/* The tracked role whose work is not settled yet; 0: none. */
BPF_ARRAY(tracked_role, u64, 1);

/*
 * Events that should have been counted and were not, by cause:
 *
 *	LOST_TALLY, LOST_WINDOW, LOST_SYSCALL
 *	LOST_CALL     a copy's call that could not be kept, or is of an unknown place
 *	LOST_PART     a copy that failed halfway and does not tell how far it came
 *	LOST_OWNER    a zero-copy send, or a socket, whose owner could not be kept
 *	LOST_REQUEST  a disk's request that could not be kept
 *	LOST_MAPPING  a DMA mapping that could not be kept
 *	LOST_FLOW     bytes of a kind of thing
 *	LOST_COMPLETION what an operation of io_uring moved: it asked for no completion, or its
 *	              completion may be another one's
 */
BPF_ARRAY(lost, u64, LOST_CAUSES);

static inline void add_u64(u64 *where, u64 amount)
{
	if (where && amount)
		__sync_fetch_and_add(where, amount);
}

static inline void count_lost(u32 cause)
{
	int slot = cause;

	add_u64(lost.lookup(&slot), 1);
}

/* The window under a process's number or its memory's address; or NULL. */
static inline struct window *window_of(u64 key)
{
	struct window *window = windows.lookup(&key);

	if (window && window->origin) {
		/* Started by a process with a window: counts as long as that one is open. */
		u64 origin = window->origin;

		window = windows.lookup(&origin);
	}
	return window;
}

/* The window that the current thread counts for, open or opening; or NULL. */
static inline struct window *window_here(void)
{
	u64 id = bpf_get_current_pid_tgid();
	u64 thread = THREAD_KEY(id & 0xffffffff);
	struct window *window = windows.lookup(&thread);

	return window ? window : window_of(id >> 32);
}

/* The address of the memory that the current thread works on; 0 in the kernel's own. */
static inline u64 memory_here(void)
{
	u64 memory = 0;

	if (TASK_MM)
		bpf_probe_read_kernel(&memory, sizeof(memory),
				      (void *)(bpf_get_current_task() + TASK_MM));
	return memory;
}

/*
 * The calls in which the kernel reads a file into its own memory for the caller: programs and
 * modules that are loaded. In a thread without a window that is work for no other process.
 */
static inline bool reads_for_itself(u32 number)
{
	return number == SYS_EXECVE || number == SYS_EXECVEAT || number == SYS_FINIT_MODULE;
}

static inline bool is_open(struct window *window)
{
	return window && !window->opener;
}

#ifndef FLOWS /* threads.c */
/* The role of the current thread's window, if that is open; otherwise 0, and its window. */
static inline u32 role_or_window(struct window **unopened)
{
	struct window *window = window_here();

	*unopened = NULL;
	if (is_open(window))
		return window->role;
	*unopened = window;
	return 0;
}

/* The role of the current thread's window, if that is open; otherwise 0. */
static inline u32 open_role(void)
{
	struct window *unopened;

	return role_or_window(&unopened);
}

/* The system call that the current thread is in. */
static inline u32 syscall_here(void)
{
	u32 thread = bpf_get_current_pid_tgid();
	u32 *number = syscall_of.lookup(&thread);

	return number ? *number : NO_SYSCALL;
}

static inline void windows_changed(void)
{
}
#endif

/* The tracked role whose work is pending; 0 if there is none. */
static inline u32 pending_role(void)
{
	int first = 0;
	u64 *role = tracked_role.lookup(&first);

	return role ? *role : 0;
}

