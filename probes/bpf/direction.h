/* Between which memories bytes move; USER_TO_KERNEL and the like come by -D. */
#ifndef ZCTRACE_DIRECTION_H
#define ZCTRACE_DIRECTION_H

/* Of the kernel's 64-bit addresses the upper half is kernel memory. */
#define IS_KERNEL(address) ((s64)(address) < 0)

static inline u32 direction_between(u64 from, u64 to)
{
	if (!from && !to)
		return 0;
	if (IS_KERNEL(from))
		return IS_KERNEL(to) ? KERNEL_TO_KERNEL : KERNEL_TO_USER;
	return IS_KERNEL(to) ? USER_TO_KERNEL : USER_TO_USER;
}

static inline u16 u16_at(u64 structure, u64 offset)
{
	u16 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(structure + offset));
	return value;
}

static inline u64 u32_at(u64 structure, u64 offset)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(structure + offset));
	return value;
}

static inline u64 u64_at(u64 structure, u64 offset)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(structure + offset));
	return value;
}

#endif
