/*
 * Counting: one cell per role, site, direction, system call and caller.
 *
 * `calls` goes up by one per execution of the probed instruction, `bytes` by what
 * that execution moved. Cells are per CPU and added to atomically, because an
 * interrupt's copy may land on top of a half-done one.
 */
struct tally_key {
	u32 role;
	u32 site;
	u32 direction; /* 0: the catalogue knows it; otherwise seen at run time */
	u32 syscall;
	u64 caller; /* number of a call site; address behind the call of a probed function; or 0 */
};

struct tally {
	u64 calls;
	u64 bytes;
};

BPF_TABLE("percpu_hash", struct tally_key, struct tally, tallies, MAX_TALLIES);

/* Every execution of each site's program, in a window or not. */
BPF_TABLE("percpu_array", int, u64, hits, MAX_SITES);

static inline void tally_as(u32 role, u32 site, u32 direction, u32 syscall, u64 bytes,
			    u64 caller)
{
	struct tally_key key = {
		.role = role, .site = site, .direction = direction, .syscall = syscall,
		.caller = caller,
	};
	struct tally *cell = tallies.lookup(&key);

	if (!cell) {
		struct tally nothing = {};

		/* -EEXIST is no loss: another CPU was quicker; the second lookup finds it. */
		tallies.insert(&key, &nothing);
		cell = tallies.lookup(&key);
		if (!cell) {
			count_lost(LOST_TALLY);
			return;
		}
	}
	add_u64(&cell->calls, 1);
	add_u64(&cell->bytes, bytes);
}

static inline u32 syscall_here(void)
{
	u32 thread = bpf_get_current_pid_tgid();
	u32 *number = syscall_of.lookup(&thread);

	return number ? *number : NO_SYSCALL;
}

#ifdef FLOWS
/* flows.c */
static inline void book(void *ctx, u32 role, u32 site, u32 direction, u32 syscall, u64 bytes,
			bool here);
#else
#define book(...)
#endif

/* Count for an open window. User memory is only copied for its owner. */
static inline void count_here(void *ctx, u32 site, u32 direction, u64 bytes, u64 caller,
			      struct window *window)
{
	u32 syscall = syscall_here();

	if (!is_open(window))
		return;
	tally_as(window->role, site, direction, syscall, bytes, caller);
	book(ctx, window->role, site, direction, syscall, bytes, true);
}

/*
 * Count a copy inside the kernel, which may happen on top of anybody's thread. If its
 * owner is known it is his. Otherwise it counts for the window of the current thread;
 * and in no window, or in another role's, while tracked work is pending it is kept
 * under that work's role, marked ROLE_UNATTRIBUTED: it may have been done for the tracked
 * program, and must not vanish.
 */
static inline void count_anywhere(void *ctx, u32 site, u32 direction, u64 bytes, u64 caller,
				  u32 owner)
{
	struct window *window = window_here();
	u32 role = 0, syscall = NO_SYSCALL, pending = pending_role();

	if (is_open(window)) {
		role = window->role;
		syscall = syscall_here();
	}
	if (owner) {
		if (role != owner)
			syscall = NO_SYSCALL;
		role = owner;
	} else if (pending && role != pending) {
		role = ROLE_UNATTRIBUTED | pending;
	}
	if (!role)
		return;
	tally_as(role, site, direction, syscall, bytes, caller);
	book(ctx, role, site, direction, syscall, bytes,
	     is_open(window) && window->role == role);
}

static inline void count_hit(int site)
{
	add_u64(hits.lookup(&site), 1);
}
