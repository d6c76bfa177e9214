/*
 * Copies within a program's own memory, at the entry of the functions that make them. Only
 * in a meter that watches a program's functions. Settings, of one function:
 *
 *	PLACE_SITE, PLACE_SLOT    the number of the site, and of the function among these
 *	PLACE_PUSHED              bytes on the stack above the address to return to
 *	PLACE_ON_STACK            where on the stack the number of units is; 0: in a register
 *	PLACE_UNIT                how many bytes each has
 *	PLACE_FIRST               the register that it is in: REGISTER_CX, or REGISTER_DX
 *	USER_COPIES_FROM          smaller copies are not counted
 */

#ifdef FLOWS
#define OWN_MEMORY
/*
 * A program that a traced process has become. It may have functions that no probe is on: another
 * C library, or another of its functions for the same purpose. Then it passes none.
 */
struct program {
	struct object_key file;
	u64 size;   /* of the file */
	u64 passed; /* bits of the functions that it has called, by PLACE_SLOT */
};

/* Of processes that are there, by number; and, of those that have ended, how many. */
BPF_HASH(programs, u32, struct program, MAX_WINDOWS);
BPF_HASH(executed, struct program, u64, MAX_OBJECTS);

/* The current process's program ends, if it was noted. */
static inline void program_ends(void)
{
	u32 process = bpf_get_current_pid_tgid() >> 32;
	struct program *program = programs.lookup(&process), ended;
	u64 nothing = 0, *count;

	if (!program)
		return;
	ended = *program;
	count = executed.lookup_or_try_init(&ended, &nothing);
	if (!count)
		count_lost(LOST_FLOW);
	add_u64(count, 1);
	programs.delete(&process);
}

static inline void has_become(void)
{
	struct program program = {};
	u32 process = bpf_get_current_pid_tgid() >> 32;
	u64 file = noted_program(&program.file);

	program_ends();
	program.size = u64_at(u64_at(file, FILE_INODE), INODE_SIZE);
	if (programs.update(&process, &program))
		count_lost(LOST_FLOW);
}

static inline void passes(void)
{
	u32 process = bpf_get_current_pid_tgid() >> 32;
	struct program *program = programs.lookup(&process);

	if (program)
		program->passed |= 1ULL << PLACE_SLOT;
}
#endif

/*
 * A word in user memory, read as strings; every zero byte ends one. Strings are not read by the
 * routine of user copies. A read by that routine would hit its breakpoint, and count as the
 * program's own on some kernels, and on others as a hit of its event alone.
 */
#define WORD_BYTES 6 /* the other two are zero in addresses and sizes */

static inline u64 user_word_at(u64 place)
{
	u64 words[2] = {};
	u64 at = 0;

#pragma unroll
	for (int i = 0; i < WORD_BYTES; i++) {
		s64 length;

		if (at >= WORD_BYTES)
			break;
		/* What the compiler knows of it the verifier would not see. */
		asm volatile("" : "+r"(at));
		at &= 7;
		asm volatile("" : "+r"(at));
		length = bpf_probe_read_user_str((char *)words + at, 8 - at, (void *)(place + at));
		if (length < 0) {
			count_lost(LOST_PART);
			return 0;
		}
		/* The zero at the end is in the length, except that of nothing else. */
		at += length ? length : 1;
	}
	return words[0];
}

/*
 * A probe on the entry of a function of the program's: +1 is a call of it. In a window alone:
 * what is to be read of user memory may cost a failure that counts.
 */
int on_user_copy(struct pt_regs *ctx)
{
	u64 units = ARGUMENT(*ctx, PLACE_FIRST);
	u32 role = open_role();

	if (!role)
		return 0;
	if (PLACE_ON_STACK)
		units = user_word_at(ctx->sp + PLACE_ON_STACK);
	count_hit(PLACE_SITE);
#ifdef FLOWS
	passes();
#endif
	if (units * PLACE_UNIT < USER_COPIES_FROM)
		return 0;
#ifdef FLOWS
	/* Of any process: an address says nothing without its maps. */
	tally_as(role, PLACE_SITE, USER_TO_USER, NO_SYSCALL, units * PLACE_UNIT, 0);
#ifdef STACKS
	if (role == ROLE_PROGRAM)
		note_stacks(ctx, PLACE_SITE, USER_TO_USER, NO_SYSCALL, units * PLACE_UNIT, true);
#endif
#else
	count_here(ctx, PLACE_SITE, USER_TO_USER, units * PLACE_UNIT,
		   user_word_at(ctx->sp + PLACE_PUSHED), role);
#endif
	return 0;
}
