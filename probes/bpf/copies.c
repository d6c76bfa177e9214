/*
 * Copies, counted in the function that copies: at a breakpoint, or at its entry.
 *
 * One program for each way of watching serves all functions. It is loaded once for each, with
 * settings (settings.h) that say what there is to know of the place:
 *
 *	PLACE_SITE                its number
 *	PLACE_AMOUNT              how the number of bytes is found (AMOUNT_*), from
 *	PLACE_FIRST, PLACE_SECOND the registers that have it
 *	PLACE_MEMBER              the offset in what the first one points to
 *	PLACE_FROM, PLACE_TO      the registers that have the addresses, where these decide on the
 *	                          direction
 *	PLACE_DIRECTION           otherwise
 *	PLACE_LARGE               from how many bytes on a copy is booked apart; 0: never
 *	PLACE_SKB                 the register that has the socket buffer
 *	PLACE_NESTS               whether a call may be a part of another one (transforms.c)
 *	PLACE_START, PLACE_SIZE   of the function
 *	PLACE_AFTER_ROUTINE       whether what it copies of user memory has been seen by the routine
 *	                          that it calls
 *
 * A register is the byte offset of a member of struct pt_regs (REGISTER_*); 0 is none.
 */
#define CHECK_REGISTER(NAME, member)                                                     \
	_Static_assert(REGISTER_##NAME == __builtin_offsetof(struct pt_regs, member),     \
		       "another place in struct pt_regs")

CHECK_REGISTER(AX, ax);
CHECK_REGISTER(DI, di);
CHECK_REGISTER(SI, si);
CHECK_REGISTER(DX, dx);
CHECK_REGISTER(CX, cx);
CHECK_REGISTER(R8, r8);
CHECK_REGISTER(R9, r9);

/*
 * The empty assembly keeps the compiler from reading at a place that depends on the number,
 * behind the branches: a program must not add a variable to its context.
 */
#define READ(registers, member)                                                          \
	({                                                                               \
		u64 word = (registers).member;                                           \
		asm volatile("" : "+r"(word));                                           \
		word;                                                                    \
	})

/* An argument, by its register; 0 if that is none. */
#define ARGUMENT(registers, number)                                                      \
	({                                                                               \
		u64 asked = (number), found = 0;                                         \
		if (asked == REGISTER_DI)                                                \
			found = READ(registers, di);                                     \
		else if (asked == REGISTER_SI)                                           \
			found = READ(registers, si);                                     \
		else if (asked == REGISTER_DX)                                           \
			found = READ(registers, dx);                                     \
		else if (asked == REGISTER_CX)                                           \
			found = READ(registers, cx);                                     \
		else if (asked == REGISTER_R8)                                           \
			found = READ(registers, r8);                                     \
		else if (asked == REGISTER_R9)                                           \
			found = READ(registers, r9);                                     \
		found;                                                                   \
	})

/* How many bytes, by what the two registers hold. */
static inline u64 amount(u64 first, u64 second, u64 skb)
{
	u64 told = PLACE_AMOUNT;

	if (told == AMOUNT_INT)
		return (u32)first;
	if (told == AMOUNT_MEMBER)
		return u32_at(first, PLACE_MEMBER);
	if (told == AMOUNT_WITHIN)
		return within(skb, second, first);
	if (told == AMOUNT_WHERE)
		return (u8)second ? (u32)first : 0;
	return first;
}

/*
 * A breakpoint: +1 is a copy of user memory. At a return instruction the bytes are those
 * really copied; at an entry, those asked for.
 */
#ifndef FLOWS
int on_breakpoint(struct bpf_perf_event_data *ctx)
{
	u64 from = ARGUMENT(ctx->regs, PLACE_FROM), to = ARGUMENT(ctx->regs, PLACE_TO);
	u64 first = ARGUMENT(ctx->regs, PLACE_FIRST), caller = 0, bytes;
	u32 direction;

	if (PLACE_FIRST == REGISTER_AX)
		first = READ(ctx->regs, ax);
	count_hit(PLACE_SITE);
	/* Of what stands at its beginning, so that the stack begins with who called it. */
	if (from)
		caller = u64_at(ctx->regs.sp, 0);
	bytes = amount(first, 0, 0);
	direction = direction_between(from, to);
	if (PLACE_LARGE && bytes >= PLACE_LARGE)
		direction |= IS_LARGE;
	count_here(ctx, PLACE_SITE, direction, bytes, caller, open_role());
	return 0;
}
#else
/*
 * The same in a thread of a traced program. What an iterator's function has copied, it has by
 * the routine if it was user memory; an iterator of kernel memory is copied otherwise. It called
 * the routine if that was called from inside it, deeper on the stack: a fault in the middle of a
 * copy may have the same function called once more.
 */
int on_breakpoint(struct bpf_perf_event_data *ctx)
{
	u64 from = ARGUMENT(ctx->regs, PLACE_FROM), to = ARGUMENT(ctx->regs, PLACE_TO);
	u64 first = ARGUMENT(ctx->regs, PLACE_FIRST), stack = READ(ctx->regs, sp), caller, bytes;
	struct thread *thread = copying_thread();
	u32 direction, role;

	if (PLACE_FIRST == REGISTER_AX)
		first = READ(ctx->regs, ax);
	count_hit(PLACE_SITE);
	if (!thread)
		return 0;
	role = thread->role;
	if (thread->in_call) {
		role = thread->call_role;
		thread->in_call = 0;
	}
	caller = u64_at(stack, 0);
	bytes = amount(first, 0, 0);
	direction = direction_between(from, to);
	if (from) {
		thread->routine_caller = caller;
		thread->routine_stack = stack;
		thread->routine_direction = direction;
		thread->routine_role = role;
	} else if (PLACE_AFTER_ROUTINE) {
		/* Of no bytes nothing is known; they are of no other direction than the rest. */
		direction = bytes ? KERNEL_TO_KERNEL : PLACE_DIRECTION;
		if (thread->routine_caller - PLACE_START < PLACE_SIZE &&
		    thread->routine_stack < stack) {
			direction = thread->routine_direction;
			role = thread->routine_role;
			thread->routine_caller = 0;
		}
	}
	if (!role)
		return 0;
	if (PLACE_LARGE && bytes >= PLACE_LARGE)
		direction |= IS_LARGE;
	copied_by(ctx, thread, role, PLACE_SITE, direction, bytes, caller);
	return 0;
}
#endif

/*
 * A copy at the entry of a function that is watched: `length` bytes asked for. A
 * function that calls itself for the parts of a socket buffer has counted them already.
 * `stack` is where its stack begins.
 */
static inline int copied_inside(void *ctx, u64 caller, u64 length, u64 skb, u64 stack)
{
	u32 direction = PLACE_DIRECTION;
	u64 tap;

	count_hit(PLACE_SITE);
	if (caller - PLACE_START < PLACE_SIZE)
		return 0;
	/* Also of no bytes: its parts may have some, as a tag. */
	if (PLACE_NESTS && !is_outermost(stack, PLACE_SITE,
					 PLACE_AMOUNT == AMOUNT_MEMBER ? length : 0, caller))
		return 0;
	if (!length)
		return 0;
	tap = skb ? tap_here() : 0;
	if (tap)
		count_tapped(ctx, tap, PLACE_SITE, direction, length, caller);
	else if (direction == KERNEL_TO_KERNEL)
		count_anywhere(ctx, PLACE_SITE, direction, length, caller,
			       skb ? owner_of_copy(skb, caller, stack) : 0);
	else
		count_here(ctx, PLACE_SITE, direction, length, caller, open_role());
	return 0;
}

/* A probe on a function's entry: +1 is a call of it. */
int on_kprobe(struct pt_regs *ctx)
{
	u64 skb = ARGUMENT(*ctx, PLACE_SKB), first = ARGUMENT(*ctx, PLACE_FIRST);
	u64 length = amount(first, ARGUMENT(*ctx, PLACE_SECOND), skb);

	return copied_inside(ctx, u64_at(ctx->sp, 0), length, skb, ctx->sp);
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

/*
 * The address behind the call of the function at `start`; 0 if it is not there.
 *
 * Since Linux 6.19 a function with a program at its return, too, jumps to the trampoline: there is
 * no address to return to in the function itself. Then the caller's stands where the trampoline's
 * own words end: behind the arguments, whose number is in front of them, the result and a frame
 * pointer.
 */
static inline u64 caller_of(struct entered *entered, u64 start, void *ctx)
{
	u64 *words = (u64 *)entered, caller = 0, place, arguments;

#pragma unroll
	for (int i = 1; i < ENTERED_WORDS - 1; i++)
		if (!caller && words[i] - start - 1 < LONGEST_CALL)
			caller = words[i + 1];
	if (caller || !PLACE_NESTS)
		return caller;
	place = place_of(ctx);
	arguments = u64_at(place - 8, 0) & 0xff;
	caller = arguments <= 6 ? u64_at(place, 8 * (arguments + 2)) : 0;
	return IS_KERNEL(caller) ? caller : 0;
}

/* Called by a function at its entry: +1 is a call of it. */
int on_fentry(void *ctx)
{
	struct entered entered = {};
	u64 caller, skb, first, length;

	if (bpf_probe_read_kernel(&entered, sizeof(entered), ctx)) {
		count_lost(LOST_CALL);
		return 0;
	}
	skb = ARGUMENT(entered, PLACE_SKB);
	first = ARGUMENT(entered, PLACE_FIRST);
	length = amount(first, ARGUMENT(entered, PLACE_SECOND), skb);
	caller = caller_of(&entered, PLACE_START, ctx);
	/* Whether it has called itself is not known then. */
	if (!caller)
		count_lost(LOST_CALL);
	return copied_inside(ctx, caller, length, skb, place_of(ctx));
}
