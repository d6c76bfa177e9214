/*
 * What is kept of each thread of a traced program, in one place: whether its window is open, the
 * system call that it is in, and what that one moves. Only in a meter that traces a program
 * (FLOWS is defined).
 *
 * Counts are collected here first, in slots for what a thread does again and again, and go into
 * the tables (tally.c, flows.c) when a slot is needed for something else, when the thread ends,
 * or when the collector reads what is left. A look into a table costs as much as all of that.
 *
 * Slots are written by programs in the thread's own context alone, never by those that an
 * interrupt may run on top of it.
 *
 * Parameters: THREAD_SLOTS, a power of two; MORE_THREADS.
 */

/*
 * A file, socket or pipe. Inode numbers of the latter two are not used twice. The kind is
 * the inode's type, so that what there is no room for is still known for what it is.
 */
struct object_key {
	u64 inode; /* 0: memory, or unknown; with a kind: many of them */
	u32 device;
	u32 kind;
};

struct transfer {
	struct object_key source, destination;
	u64 size;     /* what is moved where the result does not say how much */
	u64 messages; /* address of an array of struct mmsghdr */
	u32 source_fd, destination_fd;
	u32 told; /* 0: nothing is moved */
	u32 direct; /* whether its one descriptor is open with O_DIRECT: WAY_DIRECT, or 0 */
};

/* Which operation of io_uring, or of asynchronous I/O, is meant (rings.c). */
struct operation_key {
	u64 ring; /* 0: the other is an address */
	u64 request;
};

/* System calls of one number. */
struct called {
	u32 role; /* 0: none yet */
	u32 number;
	u32 enters, exits;
};

/* What one system call moved through one descriptor, one way. */
struct moved {
	struct object_key object;
	u32 descriptor, syscall, way;
	u32 pad;
	u64 calls, bytes;
};

/* Copies at one site, in one direction, for one caller and one object. */
struct copied {
	struct object_key object;
	u64 caller;
	u32 role, site, direction, syscall;
	u64 calls, bytes;
};

/* What was behind a descriptor when it was last looked at, and how that is known again. */
struct known_file {
	u64 file, inode, number, super;
	u64 sock, upper; /* of a connection: its socket, and what the kernel does on top of it */
	struct object_key object;
};

#define SLOTS 4
#define CALL_SLOTS 8
#define FILE_SLOTS 8

struct thread {
	u32 id; /* 0: this entry is free */
	u32 role; /* of its open window; 0: none */
	u64 generation; /* of the windows, when that was found out */
	/* Of the last call of the copy routine that no iterator's function has taken for its own: who
	 * called, where the stack was, which way, and as what it was counted; 0: it was not. */
	u64 routine_caller, routine_stack;
	u32 routine_direction, routine_role;
	/* Whether it is in a call that is counted by its place, too, and as what that is. */
	u32 in_call, call_role;
	u32 syscall; /* that it is in, or operation that it performs; NO_SYSCALL */
	/* Of an operation that it performs, and the system call around that. */
	u32 performs, around;
	struct operation_key operation;
	u64 payload_calls, payload_bytes; /* copies of payload */
	u32 process;
	char name[16]; /* when a slot for copies or bytes moved was last begun */
	struct transfer transfer;
	struct called called[CALL_SLOTS];
	struct moved moved[SLOTS];
	struct copied copied[SLOTS];
	struct known_file files[FILE_SLOTS];
};

/* By the lower bits of its number; which slots are taken; and those that found theirs taken. */
BPF_ARRAY(threads, struct thread, THREAD_SLOTS);
BPF_HASH(claims, u32, u32, THREAD_SLOTS);
BPF_HASH(more_threads, u32, struct thread, MORE_THREADS);
BPF_ARRAY(how_many_more, u64, 1);
BPF_ARRAY(blank_thread, struct thread, 1);

/*
 * How often windows have changed: by the meter's programs, and by the collector, which has a
 * cell of its own. A thread's is looked for anew then.
 */
BPF_ARRAY(generations, u64, 2);

/* Whose threads may have windows: those in this cgroup; in none, anybody's. */
BPF_CGROUP_ARRAY(scope, 1);

static inline u64 generation(void)
{
	int first = 0, second = 1;
	u64 *ours = generations.lookup(&first), *collectors = generations.lookup(&second);

	return (ours ? *ours : 0) + (collectors ? *collectors : 0);
}

static inline void windows_changed(void)
{
	int first = 0;

	add_u64(generations.lookup(&first), 1);
}

static inline bool is_in_scope(void)
{
	return scope.check_current_task(0) != 0;
}

/*
 * How often a process with a window was found outside of it, where no breakpoint is: it was
 * started there (CLONE_INTO_CGROUP), or moved.
 */
BPF_ARRAY(strays, u64, 1);

static inline void note_stray(void)
{
	int first = 0;

	if (!is_in_scope())
		add_u64(strays.lookup(&first), 1);
}

/* What is kept of the current thread; NULL if nothing is. */
static inline struct thread *thread_known(u32 id)
{
	int slot = id & (THREAD_SLOTS - 1), first = 0;
	struct thread *thread = threads.lookup(&slot);
	u64 *more;

	if (thread && thread->id == id && id)
		return thread;
	more = how_many_more.lookup(&first);
	return more && *more ? more_threads.lookup(&id) : NULL;
}

static inline struct thread *thread_begun(u32 id)
{
	int slot = id & (THREAD_SLOTS - 1), first = 0;
	struct thread *thread = threads.lookup(&slot), *blank = blank_thread.lookup(&first);

	if (!thread || !blank || !id)
		return NULL;
	if (!claims.insert(&slot, &id)) {
		bpf_probe_read_kernel(thread, sizeof(*thread), blank);
	} else {
		if (more_threads.update(&id, blank)) {
			count_lost(LOST_SYSCALL);
			return NULL;
		}
		add_u64(how_many_more.lookup(&first), 1);
		thread = more_threads.lookup(&id);
		if (!thread)
			return NULL;
	}
	thread->id = id;
	thread->process = bpf_get_current_pid_tgid() >> 32;
	thread->syscall = NO_SYSCALL;
	return thread;
}

/*
 * The role of the current thread's open window, looked for anew if windows have changed since;
 * otherwise 0, and its window, if it has one that is not open yet. `thread` is what is kept of it,
 * or NULL.
 */
static inline u32 role_of_thread(struct thread *thread, struct window **unopened)
{
	struct window *window;
	u64 now;

	*unopened = NULL;
	if (!thread && !is_in_scope())
		return 0;
	now = generation();
	if (thread && thread->generation == now && thread->role)
		return thread->role;
	window = window_here();
	if (!is_open(window)) {
		*unopened = window;
		if (thread)
			thread->role = 0;
		return 0;
	}
	if (thread) {
		thread->role = window->role;
		thread->generation = now;
	}
	return window->role;
}

/* The current thread, if its window is open; otherwise NULL, and its window as above. */
static inline struct thread *thread_or_window(struct window **unopened)
{
	u32 id = bpf_get_current_pid_tgid(), role;
	struct thread *thread = thread_known(id);

	role = role_of_thread(thread, unopened);
	if (!role)
		return NULL;
	if (!thread) {
		thread = thread_begun(id);
		if (thread)
			thread->role = role; /* for now: its generation is 0 */
	}
	return thread;
}

/*
 * The current thread in the middle of a copy, also if its window is about to open, or has been
 * closed since the copy began: such a copy is counted wholly, or not at all. Or NULL.
 */
static inline struct thread *copying_thread(void)
{
	u32 id = bpf_get_current_pid_tgid();
	struct window *unopened;
	struct thread *thread = thread_or_window(&unopened);

	if (!thread)
		thread = thread_known(id);
	if (!thread && unopened && unopened->opener == ABOUT_TO_OPEN)
		thread = thread_begun(id);
	return thread;
}

/* The current thread, if its window is open; or NULL. */
static inline struct thread *open_thread(void)
{
	struct window *unopened;

	return thread_or_window(&unopened);
}

/*
 * The role of the current thread's window, if that is open; otherwise 0, and its window. Nothing
 * is begun for the thread, which may be one that has just ended and gives up the processor.
 */
static inline u32 role_or_window(struct window **unopened)
{
	return role_of_thread(thread_known(bpf_get_current_pid_tgid()), unopened);
}

/* The role alone. */
static inline u32 open_role(void)
{
	struct window *unopened;

	return role_or_window(&unopened);
}

static inline u32 syscall_here(void)
{
	u32 id = bpf_get_current_pid_tgid(), *number;
	struct thread *thread = thread_known(id);

	if (thread)
		return thread->syscall;
	number = syscall_of.lookup(&id);
	return number ? *number : NO_SYSCALL;
}

/* A number that is used again: what its last thread was doing is over. */
static inline void begins_anew(u32 id)
{
	struct thread *thread = thread_known(id);

	if (!thread)
		return;
	thread->syscall = NO_SYSCALL;
	thread->performs = 0;
	thread->transfer.told = 0;
}
