/* Fixed-width types under the names that BCC's own helpers use. */
#ifndef ZCTRACE_TYPES_H
#define ZCTRACE_TYPES_H

typedef signed char s8, __s8;
typedef unsigned char u8, __u8;
typedef signed short s16, __s16;
typedef unsigned short u16, __u16;
typedef signed int s32, __s32;
typedef unsigned int u32, __u32;
typedef signed long long s64, __s64;
typedef unsigned long long u64, __u64;

typedef __u16 __le16, __be16, __sum16;
typedef __u32 __le32, __be32, __wsum;
typedef __u64 __le64, __be64, __aligned_u64;

typedef __u8 uint8_t;
typedef __u16 uint16_t;
typedef __u32 uint32_t;
typedef __u64 uint64_t;
typedef unsigned long size_t, uintptr_t;
typedef int pid_t;
typedef _Bool bool;

#define true 1
#define false 0
#ifndef NULL
#define NULL ((void *)0)
#endif
#endif
