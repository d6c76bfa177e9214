/*
 * A plugin of QEMU's emulator: how often each kernel instruction is executed in the stretches
 * that the workload marks. Plugin interface 1, whose header few distributions have; QEMU 7.2.
 *
 *   -plugin where.so,out=FILE
 *
 * The workload marks by long NOPs: the next operation, a stretch's beginning, its end. At each
 * next operation, FILE gets what the last one had: lines of an address and a count, where
 * address 0 is all of user space; then "= STRETCHES".
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t qemu_plugin_id_t;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_tb_trans_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_insn_exec_cb(
    struct qemu_plugin_insn *, void (*)(unsigned, void *), int flags, void *);
void qemu_plugin_register_vcpu_insn_exec_inline(
    struct qemu_plugin_insn *, int operation, void *, uint64_t);
enum { NO_REGISTERS, ADD_U64 = 0 };

#define EXPORT __attribute__((visibility("default")))
#define KERNEL (1ULL << 63)
#define USER 1 /* one cell for all of user space */
#define SLOT_BITS 23 /* twice the addresses that may be executed at all */
#define SLOTS (1U << SLOT_BITS)

EXPORT int qemu_plugin_version = 1;

enum { NEXT, BEGIN, END, MARKS };
static const unsigned char mark[] = { 0x0f, 0x1f, 0x84, 0x00, 'z', 'c', 't' };

static uint64_t address[SLOTS], count[SLOTS], began[SLOTS], within[SLOTS];
static uint32_t used[SLOTS], many, stretches;
static FILE *out;

static uint32_t slot_of(uint64_t at)
{
    uint32_t slot = (at * 0x9e3779b97f4a7c15ULL) >> (64 - SLOT_BITS);

    while (address[slot] != at) {
        if (!address[slot]) {
            if (many == SLOTS / 2)
                abort();
            address[slot] = at;
            used[many++] = slot;
            break;
        }
        slot = (slot + 1) % SLOTS;
    }
    return slot;
}

static void marked(unsigned cpu, void *data)
{
    uintptr_t which = (uintptr_t)data;

    (void)cpu;
    for (uint32_t i = 0; i < many; i++) {
        uint32_t slot = used[i];

        if (which == BEGIN)
            began[slot] = count[slot];
        if (which == END)
            within[slot] += count[slot] - began[slot];
        if (which == NEXT && within[slot]) {
            fprintf(out, "%" PRIx64 " %" PRIu64 "\n", address[slot] == USER ? 0 : address[slot],
                    within[slot]);
            within[slot] = 0;
        }
    }
    if (which == END)
        stretches++;
    if (which == NEXT) {
        fprintf(out, "= %u\n", stretches);
        fflush(out);
        stretches = 0;
    }
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct qemu_plugin_insn *one = qemu_plugin_tb_get_insn(block, i);
        uint64_t at = qemu_plugin_insn_vaddr(one);
        const unsigned char *bytes = qemu_plugin_insn_data(one);

        if (!(at & KERNEL))
            at = USER;
        qemu_plugin_register_vcpu_insn_exec_inline(one, ADD_U64, &count[slot_of(at)], 1);
        if (at == USER && qemu_plugin_insn_size(one) == sizeof mark + 1 &&
            !memcmp(bytes, mark, sizeof mark) && bytes[sizeof mark] < MARKS)
            qemu_plugin_register_vcpu_insn_exec_cb(
                one, marked, NO_REGISTERS, (void *)(uintptr_t)bytes[sizeof mark]);
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int count, char **words)
{
    (void)info;
    if (count != 1 || strncmp(words[0], "out=", 4) || !(out = fopen(words[0] + 4, "w"))) {
        fprintf(stderr, "where.so: out=FILE is missing or cannot be written\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
