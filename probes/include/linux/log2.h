/* BCC sizes stack maps with roundup_pow_of_two(); constant arguments only. */
#ifndef ZCTRACE_LOG2_H
#define ZCTRACE_LOG2_H
#define roundup_pow_of_two(n) \
	((n) <= 1 ? 1UL : 1UL << (8 * sizeof(long) - __builtin_clzl((n) - 1)))
#endif
