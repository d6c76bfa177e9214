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

static inline void tally_some(u32 role, u32 site, u32 direction, u32 syscall, u64 calls,
			      u64 bytes, u64 caller)
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
	add_u64(&cell->calls, calls);
	add_u64(&cell->bytes, bytes);
}

static inline void tally_as(u32 role, u32 site, u32 direction, u32 syscall, u64 bytes,
			    u64 caller)
{
	tally_some(role, site, direction, syscall, 1, bytes, caller);
}

#ifdef FLOWS
/* flows.c */
static inline void book(void *ctx, u32 role, u32 site, u32 direction, u32 syscall, u64 bytes,
			bool here);
#else
#define book(...)
#endif

/* Count for the role of an open window. User memory is only copied for its owner. */
static inline void count_here(void *ctx, u32 site, u32 direction, u64 bytes, u64 caller,
			      u32 role)
{
	u32 syscall = syscall_here();

	if (!role)
		return;
	tally_as(role, site, direction, syscall, bytes, caller);
	book(ctx, role, site, direction, syscall, bytes, true);
}

/*
 * The role that the current thread, or the interrupt on top of it, may be working for: that of
 * its own window; else that of the pending work, marked ROLE_UNATTRIBUTED; else 0.
 */
static inline u32 role_of_work(void)
{
	u32 role = pending_role(), own = open_role();

	if (own)
		return own;
	return role ? ROLE_UNATTRIBUTED | role : 0;
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
	u32 own = open_role(), role = own, pending = pending_role();
	u32 syscall = own ? syscall_here() : NO_SYSCALL;

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
	book(ctx, role, site, direction, syscall, bytes, own == role);
}

static inline void count_hit(int site)
{
	add_u64(hits.lookup(&site), 1);
}
