/*
 * System calls of 32-bit programs, and of others by int 0x80: they have numbers of their own,
 * which are turned into those of 64-bit calls (probes/compat.py). Only in a meter that traces a
 * program (FLOWS is defined).
 *
 * Parameters: TYPED_TASK, whether there is typed_task(); COMPAT_CALLS, COMPAT_BEHIND, COMPAT_MARK, COMPAT_SOCKETCALL, and TASK_STATUS,
 * where in a task thread_info.status is; 0: not known, and there are no such calls.
 */
BPF_ARRAY(compat_calls, u32, COMPAT_CALLS);

#define TS_COMPAT 2 /* arch/x86/include/asm/thread_info.h: the call is a 32-bit one */

/*
 * The current task, of a type that the verifier knows: its members can be read without a helper,
 * and those of what they point to. bpf_get_current_task_btf(), since Linux kernel commit
 * 3ca1032ab7ab ("bpf: Implement get_current_task_btf and RET_PTR_TO_BTF_ID") (in v5.11); called
 * by its number so that BCC takes its members for what they are.
 */
#if TYPED_TASK
static void *(*typed_task)(void) = (void *)158;
#endif

static inline bool is_compat(void)
{
#if TYPED_TASK
	return TASK_STATUS && *(u32 *)(typed_task() + TASK_STATUS) & TS_COMPAT;
#else
	return TASK_STATUS && u32_at(bpf_get_current_task(), TASK_STATUS) & TS_COMPAT;
#endif
}

/*
 * What the meter calls the system call that the current thread makes by that number. What
 * socketcall stands for its arguments tell; at the exit of one there are none (NULL).
 */
static inline u32 call_number(u32 number, void *arguments)
{
	int index = number;
	u64 which = 0;
	u32 *same;

	if (!is_compat())
		return number;
	if (number == COMPAT_SOCKETCALL && arguments) {
		bpf_probe_read_kernel(&which, sizeof(which), arguments);
		if (which < COMPAT_CALLS - COMPAT_BEHIND)
			index = COMPAT_BEHIND + which;
	} else if (number >= COMPAT_BEHIND) {
		return COMPAT_MARK | number;
	}
	same = compat_calls.lookup(&index);
	return same ? *same : COMPAT_MARK | number;
}
