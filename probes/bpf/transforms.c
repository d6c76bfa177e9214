/*
 * Bytes that the CPU transforms: which calls of the kernel's crypto API count, and which do not.
 *
 * An algorithm may be put together of others (gcm of ctr and ghash), which are asked through the
 * same functions for the same bytes: only the outermost call counts. The stack tells which one
 * that is. A call is noted at its entry, by the stack that it runs on, until it returns; a call
 * that is entered deeper on that stack before that is a part of it. Interrupts have a stack of
 * their own.
 *
 * What a call has handed over (-EINPROGRESS, -EBUSY) is done later by an asynchronous algorithm: a
 * device's, or cryptd's, whose thread calls these functions again. It is counted once more, with
 * the direction KERNEL_TO_DEVICE, to be taken off.
 */
struct outermost {
	u64 stack; /* at the entry, the same again at the return */
	u64 thread;
	u64 bytes; /* of a request, which can be handed over; otherwise 0 */
	u64 caller;
	u32 site;
	u32 pad;
};

#define STACK_SHIFT 14 /* THREAD_SIZE of x86-64, to which threads' stacks are aligned */
#define EBUSY 16
#define EINPROGRESS 115

BPF_HASH(transforming, u64, struct outermost, MAX_THREADS);

/* The call that runs on this stack, at or above `stack`; or NULL. */
static inline struct outermost *outermost_on(u64 stack)
{
	u64 key = stack >> STACK_SHIFT, thread = thread_here();
	struct outermost *call = transforming.lookup(&key);

	if (call && call->thread == thread && call->stack >= stack)
		return call;
	/* An interrupt's stack has this size, and may begin at any page. */
	key++;
	call = transforming.lookup(&key);
	if (call && call->thread == thread && call->stack - stack < 1 << STACK_SHIFT)
		return call;
	return NULL;
}

/* At an entry: whether the call is the outermost, which is noted then. */
static inline bool is_outermost(u64 stack, u32 site, u64 bytes, u64 caller)
{
	u64 key = stack >> STACK_SHIFT;
	struct outermost call = {
		.stack = stack, .thread = thread_here(), .bytes = bytes, .caller = caller,
		.site = site,
	};

	if (!role_of_work())
		return true; /* has no role, and is not counted */
	if (outermost_on(stack))
		return false;
	if (transforming.update(&key, &call))
		count_lost(LOST_CALL);
	return true;
}

/* At the return of a function that is entered with this stack pointer. */
static inline int transform_ends(void *ctx, u64 stack, s32 result)
{
	u64 key = stack >> STACK_SHIFT;
	struct outermost *call = transforming.lookup(&key);

	if (!call || call->thread != thread_here() || call->stack != stack)
		return 0;
	if (call->bytes && (result == -EINPROGRESS || result == -EBUSY))
		count_anywhere(ctx, call->site, KERNEL_TO_DEVICE, call->bytes, call->caller, 0);
	transforming.delete(&key);
	return 0;
}

#ifdef FLOWS
/* Return of a function. A probe finds the stack as it is behind the return instruction. */
int on_transform_done(struct pt_regs *ctx)
{
	return transform_ends(ctx, ctx->sp - 8, ctx->ax);
}

/* The same of a function of one argument, a request: behind it is what it returns. */
int on_fexit_transform_done(void *ctx)
{
	return transform_ends(ctx, place_of(ctx), arguments_of(ctx).si);
}

/* The same of functions of more arguments, which hand nothing over. */
int on_fexit_checksum_done(void *ctx)
{
	return transform_ends(ctx, place_of(ctx), 0);
}
#endif
