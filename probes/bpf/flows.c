/*
 * Flows: what a program receives and delivers, from where and to where, and what was
 * copied for it. Only in a meter that traces a program (FLOWS is defined).
 *
 * At the entry of a system call that moves bytes the files behind its descriptors are
 * looked up; at its exit what it returned is added to their accounts. In between, what
 * the CPU copies is booked to the same files.
 *
 * Parameters in addition to meter.c's: MAX_FLOWS, MAX_OBJECTS, MAX_WORKERS, MAX_SYSCALL,
 * NAME_BYTES, ROLE_PROGRAM, PURPOSE_PAYLOAD, SYSCALL_EXIT_ID, SYSCALL_EXIT_RESULT, TOLD_*, WAY_*,
 * RUNNING_*, NO_DESCRIPTOR, and the offsets of members TASK_FILES, TASK_SIGNAL,
 * SIGNAL_LIVE, FILES_TABLE, TABLE_SIZE, TABLE_FILES, FILE_INODE, FILE_DENTRY, FILE_MODE,
 * FILE_PRIVATE, DENTRY_PARENT, DENTRY_NAME, INODE_MODE, INODE_NUMBER, INODE_SUPER, INODE_SIZE,
 * INODE_DEVICE, SUPER_DEVICE, SOCKET_SOCK, SOCK_FAMILY, SOCK_PEER_PORT, SOCK_PORT,
 * SOCK_PEER, SOCK_ADDRESS, SOCK_PEER6, SOCK_ADDRESS6, SOCK_TYPE, SUPER_TYPE, FILE_SYSTEM_NAME,
 * FILE_FLAGS; or 0, where they are not known: UNIX_PEER, SOCK_PROTOCOL, SOCK_UPPER, UPPER_NAME
 *
 * With STACKS also who was on the stack at each copy: MAX_STACKS, and the offset
 * MEMORY_PROGRAM.
 */
struct transfer_call {
	u8 source;      /* number of the argument, from 1; 0: the program's memory */
	u8 destination;
	u8 told;
	u8 by_mode;
	/* What kind of thing that no descriptor names it moves bytes out of, or into. */
	u8 source_kind, destination_kind;
	u8 pad[2];
};

#define OBJECT_NAMES 10
#define TYPE_NAME_BYTES 16

struct object {
	u64 sock, peer_sock; /* of a connected Unix socket; each end has the other's */
	u32 device; /* of a device file, which one */
	u32 family; /* of a socket */
	u16 type;
	u16 port, peer_port; /* the latter in network order */
	u16 protocol;
	char upper[16]; /* the protocol on top of TCP that the kernel does, as "tls" */
	u8 address[16], peer[16];
	u8 type_name[TYPE_NAME_BYTES]; /* of the file system that it is on */
	u8 names[OBJECT_NAMES * NAME_BYTES]; /* of a file, from the last to the first */
};

struct flow_key {
	struct object_key object;
	u32 process;
	u32 descriptor; /* NO_DESCRIPTOR: the call had begun before anybody looked */
	u32 syscall;
	u32 way;
};

struct booking_key {
	struct object_key object;
	u32 syscall;
	u32 direction;
	u32 process; /* 0: in a softirq, or several */
	u32 pad;
};

struct worker {
	u32 process;
	u32 pad;
	u64 calls;
	u64 bytes;
	char name[16];
};

BPF_ARRAY(transfer_calls, struct transfer_call, MAX_SYSCALL);
/* What each site's bytes are for; PURPOSE_PAYLOAD, or 0 for what is never added. */
BPF_ARRAY(purposes, u32, MAX_SITES);
BPF_HASH(objects, struct object_key, struct object, MAX_OBJECTS);
BPF_HASH(flows, struct flow_key, struct tally, MAX_FLOWS);
BPF_HASH(bookings, struct booking_key, struct tally, MAX_FLOWS);
BPF_HASH(workers, u32, struct worker, MAX_WORKERS);
BPF_PERCPU_ARRAY(fresh_object, struct object, 1);
/*
 * What those above have no room for, all things of a kind together: no byte is lost,
 * however many files, connections and threads there are. A kind, a call and a direction
 * make a row, so that there is always room.
 */
BPF_HASH(more_flows, struct flow_key, struct tally, 1024);
BPF_HASH(more_bookings, struct booking_key, struct tally, 4096);
BPF_ARRAY(more_workers, struct tally, 1);
/* Bytes, moved or copied, in rows of many. */
BPF_F_TABLE("array", int, u64, overflow, 1, BPF_F_MMAPABLE);

/*
 * What moved and what was copied up to now, by system call; for those who look on. They have
 * it in their memory: reading it takes no bpf(2), which would keep programs from running.
 */
BPF_F_TABLE("array", int, u64, running, MAX_SYSCALL *RUNNING_FIGURES, BPF_F_MMAPABLE);

/* The same of each cgroup, where that is wanted: 1. */
struct unit_key {
	u64 cgroup; /* its number; 0: outside of any process */
	u32 syscall, pad;
};

struct unit_bytes {
	u64 received, delivered, copied;
};

BPF_ARRAY(by_unit, u32, 1);
BPF_HASH(units, struct unit_key, struct unit_bytes, MAX_FLOWS);

static inline void add_of_unit(u32 syscall, u32 figure, u64 bytes, bool here)
{
	struct unit_key key = {.syscall = syscall};
	struct unit_bytes nothing = {}, *row;

	if (here)
		key.cgroup = bpf_get_current_cgroup_id();
	row = units.lookup_or_try_init(&key, &nothing);
	if (!row)
		count_lost(LOST_FLOW);
	else if (figure == RUNNING_COPIED)
		add_u64(&row->copied, bytes);
	else
		add_u64(figure == RUNNING_IN ? &row->received : &row->delivered, bytes);
}

/* `here` is whether the current process did that. */
static inline void add_running(u32 syscall, u32 figure, u64 bytes, bool here)
{
	int slot = (syscall < MAX_SYSCALL ? syscall : MAX_SYSCALL - 1) * RUNNING_FIGURES + figure;
	int first = 0;
	u32 *wanted = by_unit.lookup(&first);

	add_u64(running.lookup(&slot), bytes);
	if (wanted && *wanted)
		add_of_unit(syscall, figure, bytes, here);
}

static inline void in_a_row_of_many(u64 bytes)
{
	int first = 0;

	add_u64(overflow.lookup(&first), bytes);
}

static inline u64 file_of(u32 descriptor)
{
#if TYPED_TASK
	void *task = typed_task(), *files = *(void **)(task + TASK_FILES), *table;

	if (!files)
		return 0;
	table = *(void **)(files + FILES_TABLE);
	if (!table || descriptor >= *(u32 *)(table + TABLE_SIZE))
		return 0;
	return u64_at(*(u64 *)(table + TABLE_FILES) + 8 * (u64)descriptor, 0);
#else
	u64 files = u64_at(bpf_get_current_task(), TASK_FILES);
	u64 table = u64_at(files, FILES_TABLE);

	if (!files || descriptor >= u32_at(table, TABLE_SIZE))
		return 0;
	return u64_at(u64_at(table, TABLE_FILES) + 8 * (u64)descriptor, 0);
#endif
}

#define PROTOCOL_TCP 6 /* IPPROTO_TCP */

/* It may come on top of a connection at any time, and stays. */
static inline void describe_upper(u64 sock, struct object *object)
{
	u64 operations;

	if (!SOCK_UPPER || object->protocol != PROTOCOL_TCP || object->upper[0])
		return;
	operations = u64_at(sock, SOCK_UPPER);
	if (operations)
		bpf_probe_read_kernel_str(object->upper, sizeof(object->upper),
					  (void *)(operations + UPPER_NAME));
}

static inline u64 sock_of(u64 file)
{
	return u64_at(u64_at(file, FILE_PRIVATE), SOCKET_SOCK);
}

static inline void describe_socket(u64 file, struct object *object)
{
	u64 sock = sock_of(file);

	object->family = u16_at(sock, SOCK_FAMILY);
	object->type = u16_at(sock, SOCK_TYPE);
	object->port = u16_at(sock, SOCK_PORT);
	object->peer_port = u16_at(sock, SOCK_PEER_PORT);
	if (object->family == 2) { /* AF_INET */
		bpf_probe_read_kernel(object->address, 4, (void *)(sock + SOCK_ADDRESS));
		bpf_probe_read_kernel(object->peer, 4, (void *)(sock + SOCK_PEER));
	} else if (object->family == 10) { /* AF_INET6 */
		bpf_probe_read_kernel(object->address, 16, (void *)(sock + SOCK_ADDRESS6));
		bpf_probe_read_kernel(object->peer, 16, (void *)(sock + SOCK_PEER6));
	} else if (object->family == 1) { /* AF_UNIX */
		if (UNIX_PEER) {
			object->sock = sock;
			object->peer_sock = u64_at(sock, UNIX_PEER);
		}
		return;
	} else {
		return;
	}
	if (SOCK_PROTOCOL)
		object->protocol = u16_at(sock, SOCK_PROTOCOL);
	describe_upper(sock, object);
}

/* Its names up to the root of its file system. */
static inline void describe_path(u64 file, struct object *object)
{
	u64 dentry = u64_at(file, FILE_DENTRY);

#pragma unroll
	for (int i = 0; i < OBJECT_NAMES; i++) {
		u64 parent = u64_at(dentry, DENTRY_PARENT);

		if (!dentry || parent == dentry)
			break;
		bpf_probe_read_kernel_str(&object->names[i * NAME_BYTES], NAME_BYTES,
					  (void *)u64_at(dentry, DENTRY_NAME));
		dentry = parent;
	}
}

#define KIND_BITS 0170000
#define KIND_SOCKET 0140000
#define KIND_PIPE 0010000
#define KIND_OTHER 1 /* event counters, timers and the like have no type */
#define O_DIRECT 040000

#define HAS_UPPER (1U << 31)

/* Of a socket what is to be known where there is no room for a row: its protocol. */
static inline u32 sort_of(struct object *object, u32 kind)
{
	u32 sort = 0;

	if (kind == KIND_SOCKET)
		sort = object->family << 24 | (u32)object->type << 16 | object->protocol;
	return object->upper[0] ? sort | HAS_UPPER : sort;
}

/* Which thing a file is; what is to be known of it is noted when it is first seen. */
static inline void identify(u64 file, struct object_key *key)
{
	u64 inode = u64_at(file, FILE_INODE);
	struct object *object;
	u32 type = u16_at(inode, INODE_MODE) & KIND_BITS;
	int first = 0;

	if (!inode)
		return;
	key->inode = u64_at(inode, INODE_NUMBER);
	key->device = u32_at(u64_at(inode, INODE_SUPER), SUPER_DEVICE);
	key->kind = type ? type : KIND_OTHER;
	object = objects.lookup(key);
	if (object) {
		if (object->protocol)
			describe_upper(sock_of(file), object);
		return;
	}
	object = fresh_object.lookup(&first);
	if (!object)
		return;
	__builtin_memset(object, 0, sizeof(*object));
	bpf_probe_read_kernel_str(object->type_name, TYPE_NAME_BYTES,
				  (void *)u64_at(u64_at(u64_at(inode, INODE_SUPER), SUPER_TYPE),
						 FILE_SYSTEM_NAME));
	object->device = u32_at(inode, INODE_DEVICE);
	if (key->kind == KIND_SOCKET)
		describe_socket(file, object);
	else if (key->kind != KIND_PIPE)
		describe_path(file, object);
	if (objects.update(key, object)) {
		/* There is no room: one of many of its kind. */
		key->inode = 0;
		key->device = sort_of(object, key->kind);
	}
}

#define MOST_APART 64

/* Two words of a structure, by one look if they are near each other; returns the other one. */
static inline u64 two_at(u64 structure, u64 one, u64 other, u64 *first)
{
	u64 from = one < other ? one : other, apart = one < other ? other - one : one - other;
	u32 words[MOST_APART / 4 + 2], first_at = (one - from) / 4, other_at = (other - from) / 4;

	if (apart > MOST_APART || apart % 4) {
		*first = u64_at(structure, one);
		return u64_at(structure, other);
	}
	if (bpf_probe_read_kernel(words, apart + 8, (void *)(structure + from)))
		__builtin_memset(words, 0, sizeof(words));
	*first = words[first_at] | (u64)words[first_at + 1] << 32;
	return words[other_at] | (u64)words[other_at + 1] << 32;
}

/*
 * Which thing a file is. What the thread has seen in one of its slots before it knows again by
 * the file's, the inode's and the file system's addresses and the inode's number.
 */
static inline void look_at(struct thread *thread, u64 file, u32 slot, struct object_key *key,
			   u32 *direct)
{
	struct known_file *known = &thread->files[slot & (FILE_SLOTS - 1)];
	u64 inode, number, super;
	struct object *object;

	*direct = two_at(file, FILE_INODE, FILE_FLAGS, &inode) & O_DIRECT ? WAY_DIRECT : 0;
	super = two_at(inode, INODE_NUMBER, INODE_SUPER, &number);
	if (known->file != file || known->inode != inode || known->number != number ||
	    known->super != super ||
	    (known->sock && u64_at(known->sock, SOCK_UPPER) != known->upper)) {
		known->object.inode = known->object.device = known->object.kind = 0;
		identify(file, &known->object);
		known->file = file;
		known->inode = inode;
		known->number = number;
		known->super = super;
		known->sock = 0;
		object = objects.lookup(&known->object);
		if (SOCK_UPPER && object && object->protocol == PROTOCOL_TCP) {
			known->sock = sock_of(file);
			known->upper = u64_at(known->sock, SOCK_UPPER);
		}
	}
	*key = known->object;
}

/* Which thing is behind a descriptor; returns the file. */
static inline u64 look_behind(struct thread *thread, u32 descriptor, struct object_key *key,
			      u32 *direct)
{
	u64 file = file_of(descriptor);

	if (file)
		look_at(thread, file, descriptor, key, direct);
	return file;
}

/* A row for all of its kind, where it has one of its own, and there is no room for more. */
static inline void as_one_of_many(struct object_key *key)
{
	struct object *object;

	/* What no descriptor names is one in any case (nameless()). */
	if (!key->inode || (key->kind < KIND_PIPE && key->kind != KIND_OTHER))
		return;
	object = objects.lookup(key);
	key->device = object ? sort_of(object, key->kind) : 0;
	key->inode = 0;
}

/* All things of a kind that no descriptor names are one. */
static inline void nameless(struct object_key *key, u8 kind)
{
	if (!kind)
		return;
	key->kind = kind;
	key->inode = 1;
}

#define FICLONE 0x40049409U
#define FICLONERANGE 0x4020940dU
#define FMODE_WRITE 2

/*
 * Read the program's memory. That is done by the routine under user copies, where there may
 * be a breakpoint: its event counts this, and its program does not run on top of this one.
 */
static inline void peek(void *to, u32 size, u64 from)
{
	if (!bpf_probe_read_user(to, size, (void *)from))
		count_hit(ROUTINE_SITE);
}

/* The argument of that number, from 1. */
static inline u64 nth(u64 *arguments, u32 number)
{
	u64 value = arguments[0];

	if (number == 2)
		value = arguments[1];
	else if (number == 3)
		value = arguments[2];
	return value;
}

/* At the entry of a system call in the program's window. */
static inline void transfer_begins(struct thread *thread, u32 number, void *ctx)
{
	int index = number;
	struct transfer_call *call = transfer_calls.lookup(&index);
	struct transfer *transfer = &thread->transfer;
	u64 arguments[3], range[3] = {}, file, whole;
	u32 socket = 0;

	if (!call || !call->told)
		return;
	arguments[0] = *(u64 *)(ctx + SYSCALL_ENTER_ARGS);
	arguments[1] = *(u64 *)(ctx + SYSCALL_ENTER_ARGS + 8);
	arguments[2] = *(u64 *)(ctx + SYSCALL_ENTER_ARGS + 16);
	/* Its arguments are in memory; of all that move bytes the first is the descriptor. */
	if (*(s64 *)(ctx + SYSCALL_ENTER_ID) == COMPAT_SOCKETCALL) {
		peek(&socket, sizeof(socket), arguments[1]);
		arguments[0] = socket;
	}
	__builtin_memset(transfer, 0, sizeof(*transfer));
	transfer->told = call->told;
	transfer->source_fd = call->source ? nth(arguments, call->source) : NO_DESCRIPTOR;
	transfer->destination_fd =
		call->destination ? nth(arguments, call->destination) : NO_DESCRIPTOR;
	if (call->told == TOLD_WHOLE_FILE) {
		if ((u32)arguments[1] == FICLONERANGE) {
			peek(range, sizeof(range), arguments[2]);
			transfer->source_fd = range[0];
			transfer->size = range[2];
		} else if ((u32)arguments[1] != FICLONE) {
			transfer->told = 0;
			return;
		}
	}
	if (call->told == TOLD_MESSAGES)
		transfer->messages = arguments[1];
	if (call->told == TOLD_THIRD)
		transfer->size = arguments[2];
	/* Of a pipe that is open for both, vmsplice takes the end for writing. */
	if (call->by_mode && (file = file_of(transfer->destination_fd)) &&
	    !(u32_at(file, FILE_MODE) & FMODE_WRITE)) {
		transfer->source_fd = transfer->destination_fd;
		transfer->destination_fd = NO_DESCRIPTOR;
	}
	if (transfer->source_fd != NO_DESCRIPTOR) {
		file = look_behind(thread, transfer->source_fd, &transfer->source,
				   &transfer->direct);
		/* A range of length 0 goes to the end. */
		if (call->told == TOLD_WHOLE_FILE && !transfer->size && file) {
			whole = u64_at(u64_at(file, FILE_INODE), INODE_SIZE);
			if (whole > range[1])
				transfer->size = whole - range[1];
		}
	}
	if (transfer->destination_fd != NO_DESCRIPTOR)
		look_behind(thread, transfer->destination_fd, &transfer->destination,
			    &transfer->direct);
	nameless(&transfer->source, call->source_kind);
	nameless(&transfer->destination, call->destination_kind);
}

/* So much in so many calls; into a row of many, if there is no room for another. */
static inline void add_flow(struct moved *moved, u32 process)
{
	struct flow_key key = {
		.object = moved->object, .process = process,
		.descriptor = moved->descriptor, .syscall = moved->syscall, .way = moved->way,
	};
	struct tally nothing = {}, *cell = flows.lookup_or_try_init(&key, &nothing);

	if (!cell) {
		as_one_of_many(&key.object);
		key.process = 0;
		key.descriptor = NO_DESCRIPTOR;
		cell = more_flows.lookup_or_try_init(&key, &nothing);
	}
	if (!cell) {
		count_lost(LOST_FLOW);
		return;
	}
	if (key.object.kind && !key.object.inode)
		in_a_row_of_many(moved->bytes);
	add_u64(&cell->calls, moved->calls);
	add_u64(&cell->bytes, moved->bytes);
}

static inline bool is_same(struct object_key *one, struct object_key *other)
{
	return one->inode == other->inode && one->device == other->device &&
	       one->kind == other->kind;
}

static inline void flowed(struct thread *thread, struct object_key *object, u32 descriptor,
			  u32 syscall, u32 way, u64 bytes)
{
	struct moved *moved = &thread->moved[(descriptor + syscall + way) & (SLOTS - 1)];

	add_running(syscall, way & WAY_IN ? RUNNING_IN : RUNNING_OUT, bytes, true);
	if (!is_same(&moved->object, object) || moved->descriptor != descriptor ||
	    moved->syscall != syscall || moved->way != way) {
		if (moved->calls)
			add_flow(moved, bpf_get_current_pid_tgid() >> 32);
		bpf_get_current_comm(thread->name, sizeof(thread->name));
		moved->object = *object;
		moved->descriptor = descriptor;
		moved->syscall = syscall;
		moved->way = way;
		moved->calls = moved->bytes = 0;
	}
	moved->calls++;
	moved->bytes += bytes;
}

#define MOST_MESSAGES 1024 /* UIO_MAXIOV: the kernel takes no more in one call */
#define MESSAGE_BYTES 64  /* struct mmsghdr: struct msghdr, and behind it the length */
#define MESSAGE_WORDS (MESSAGE_BYTES / 4)
#define MESSAGE_LENGTH 14 /* the word that is the length */
#define MESSAGES_AT_ONCE 64

/* A stretch of the caller's array, copied to where it can be read without a helper. */
struct messages {
	u32 words[MESSAGES_AT_ONCE * MESSAGE_WORDS];
	u64 reads;
};

BPF_PERCPU_ARRAY(messages_here, struct messages, 1);

/*
 * Bytes of the first `count` messages. No branches, which the verifier would have to try every
 * combination of: the empty assembly keeps the compiler from making one of a mask. And no
 * loop inside another one's.
 */
static inline u64 length_of_some(struct messages *some, u64 count)
{
	u64 bytes = 0;

#pragma unroll
	for (u64 i = 0; i < MESSAGES_AT_ONCE; i++) {
		u64 active = i - count;

		asm volatile("" : "+r"(active));
		active = (s64)active >> 63; /* all ones as long as i is less than count */
		asm volatile("" : "+r"(active));
		bytes += some->words[i * MESSAGE_WORDS + MESSAGE_LENGTH] & active;
	}
	return bytes;
}

/*
 * Bytes of `count` messages. Whatever branches off inside the loop leaves it: some kernels'
 * verifiers (found on 6.16 and 6.18) walk all that is left of a loop once more for every turn
 * in which a branch comes back into it. How often was read stands in the map, where verifiers do
 * not follow it: known exactly, it made those of 5.10 and 6.1 walk the rest of the program anew for
 * every turn in which the loop may end.
 */
static inline u64 length_of(u64 messages, u64 count)
{
	int first = 0, routine = ROUTINE_SITE;
	struct messages *some = messages_here.lookup(&first);
	u64 bytes = 0, i;

	if (!some) {
		count_lost(LOST_PART);
		return 0;
	}
	some->reads = 0;
	if (count > MOST_MESSAGES)
		goto unreadable;
#pragma nounroll
	for (i = 0; i < MOST_MESSAGES; i += MESSAGES_AT_ONCE) {
		if (count - i < MESSAGES_AT_ONCE)
			break;
		if (bpf_probe_read_user(some->words, sizeof(some->words),
					(void *)(messages + i * MESSAGE_BYTES)))
			goto unreadable;
		bytes += length_of_some(some, MESSAGES_AT_ONCE);
		some->reads++;
	}
	/* The others; the verifier must see that they are few. */
	asm volatile("" : "+r"(count));
	count &= MESSAGES_AT_ONCE - 1;
	if (count) {
		if (bpf_probe_read_user(some->words, count * MESSAGE_BYTES,
					(void *)(messages + i * MESSAGE_BYTES)))
			goto unreadable;
		bytes += length_of_some(some, count);
		some->reads++;
	}
	goto done;
unreadable:
	count_lost(LOST_PART);
done:
	add_u64(hits.lookup(&routine), some->reads); /* as in peek() */
	return bytes;
}

/* At the exit of a system call in the program's window. */
static inline void transfer_ends(struct thread *thread, void *ctx)
{
	s64 result = *(s64 *)(ctx + SYSCALL_EXIT_RESULT);
	struct transfer *transfer = &thread->transfer;
	struct object_key unknown = {};
	u32 told = transfer->told, syscall = thread->syscall;

	if (syscall == NO_SYSCALL) {
		/* Which one socketcall stood for cannot be seen any more. */
		int index = call_number(*(s64 *)(ctx + SYSCALL_EXIT_ID), NULL);
		struct transfer_call *call = transfer_calls.lookup(&index);

		if (result <= 0)
			return;
		if (index == (COMPAT_MARK | COMPAT_SOCKETCALL))
			count_lost(LOST_PART);
		if (!call)
			return;
		/* It began before the tracing: its two ends were not seen. */
		if (call->told == TOLD_MESSAGES)
			count_lost(LOST_PART); /* nor were its messages */
		if (call->told != TOLD_BYTES)
			return;
		if (call->source)
			flowed(thread, &unknown, NO_DESCRIPTOR, index, WAY_IN, result);
		if (call->destination)
			flowed(thread, &unknown, NO_DESCRIPTOR, index, WAY_OUT, result);
		return;
	}
	transfer->told = 0;
	if (!told || result < 0)
		return;
	if (told == TOLD_MESSAGES)
		result = length_of(transfer->messages, result);
	else if (told == TOLD_WHOLE_FILE || told == TOLD_THIRD)
		result = transfer->size;
	if (!result)
		return;
	if (transfer->source_fd != NO_DESCRIPTOR || transfer->source.kind)
		flowed(thread, &transfer->source, transfer->source_fd, syscall,
		       WAY_IN | transfer->direct, result);
	if (transfer->destination_fd != NO_DESCRIPTOR || transfer->destination.kind)
		flowed(thread, &transfer->destination, transfer->destination_fd, syscall,
		       WAY_OUT | transfer->direct, result);
}

#ifdef STACKS
/* Who copies, with everybody who is on the stack; below 0: why there is no such stack. */
struct stack_key {
	s32 kernel, user;
	u32 process;
	u32 site;
	u32 syscall;
	u32 direction;
	char name[16];
};

BPF_STACK_TRACE(kernel_stacks, MAX_STACKS);
/* By the build identity of the program or library and the place in its file, so that names
 * can be looked up when the program is gone. */
BPF_STACK_TRACE_BUILDID(user_stacks, MAX_STACKS);
BPF_HASH(stacks, struct stack_key, struct tally, MAX_STACKS);

static inline void note_stacks(void *ctx, u32 site, u32 direction, u32 syscall, u64 bytes,
			       bool here)
{
	struct stack_key key = {.site = site, .syscall = syscall, .direction = direction};
	struct tally nothing = {}, *cell;

	key.kernel = kernel_stacks.get_stackid(ctx, 0);
	key.user = -1;
	if (here) { /* otherwise a softirq, on top of anybody */
		key.user = user_stacks.get_stackid(ctx, BPF_F_USER_STACK);
		key.process = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(key.name, sizeof(key.name));
	}
	/* What a full table does not take is missing in the sum, and can be seen there. */
	cell = stacks.lookup_or_try_init(&key, &nothing);
	if (cell) {
		add_u64(&cell->calls, 1);
		add_u64(&cell->bytes, bytes);
	}
}
#endif

/* Note the file of the program that the current process has become, and return it. */
static inline u64 noted_program(struct object_key *key)
{
	u64 file = u64_at(memory_here(), MEMORY_PROGRAM);

	if (file)
		identify(file, key);
	return file;
}

static inline bool is_payload(u32 site)
{
	int number = site;
	u32 *purpose = purposes.lookup(&number);

	return purpose && *purpose == PURPOSE_PAYLOAD;
}

/* What a copy in the thread's system call is booked to; for all else, what is unknown. */
static inline struct object_key booked_to(struct thread *thread, u32 direction)
{
	struct object_key unknown = {};

	if (!thread || !thread->transfer.told)
		return unknown;
	/* Bytes in the kernel are booked to where they go, if that is anywhere. */
	if (direction != KERNEL_TO_USER && thread->transfer.destination.kind)
		return thread->transfer.destination;
	return thread->transfer.source;
}

static inline void add_booking(struct object_key object, u32 process, u32 syscall,
			       u32 direction, u64 calls, u64 bytes)
{
	struct booking_key key = {
		.object = object, .syscall = syscall, .direction = direction,
		.process = process,
	};
	struct tally nothing = {}, *cell = bookings.lookup_or_try_init(&key, &nothing);

	if (!cell) {
		as_one_of_many(&key.object);
		key.process = 0;
		cell = more_bookings.lookup_or_try_init(&key, &nothing);
	}
	if (cell) {
		add_u64(&cell->calls, calls);
		add_u64(&cell->bytes, bytes);
	} else {
		count_lost(LOST_FLOW);
	}
	if (key.object.kind && !key.object.inode)
		in_a_row_of_many(bytes);
}

/* Copies of payload by a thread; by 0 in a softirq, on top of anybody. */
static inline void add_work(u32 thread, u64 calls, u64 bytes)
{
	int first = 0;
	struct worker fresh = {}, *worker = workers.lookup_or_try_init(&thread, &fresh);
	struct tally *more;

	if (!worker) {
		in_a_row_of_many(bytes);
		more = more_workers.lookup(&first);
		if (more) {
			add_u64(&more->calls, calls);
			add_u64(&more->bytes, bytes);
		}
		return;
	}
	if (thread) {
		worker->process = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(worker->name, sizeof(worker->name));
	}
	add_u64(&worker->calls, calls);
	add_u64(&worker->bytes, bytes);
}

/*
 * A copy for the program: book it to the file, socket or pipe, and to the thread; `here` is
 * whether the current thread has made it.
 */
static inline void book(void *ctx, u32 role, u32 site, u32 direction, u32 syscall, u64 bytes,
			bool here)
{
	u32 id = bpf_get_current_pid_tgid();
	struct thread *thread = here ? thread_known(id) : NULL;

	if (role != ROLE_PROGRAM || !is_payload(site))
		return;
	add_running(syscall, RUNNING_COPIED, bytes, here);
#ifdef STACKS
	note_stacks(ctx, site, direction, syscall, bytes, here);
#endif
	add_booking(booked_to(thread, direction), here ? bpf_get_current_pid_tgid() >> 32 : 0,
		    syscall, direction, 1, bytes);
	add_work(here ? id : 0, 1, bytes);
}

/* What a slot has: into the tables. */
static inline void give_copied(struct copied *copied)
{
	if (!copied->calls)
		return;
	tally_some(copied->role, copied->site, copied->direction, copied->syscall, copied->calls,
		   copied->bytes, copied->caller);
	if (copied->role == ROLE_PROGRAM && is_payload(copied->site))
		add_booking(copied->object, bpf_get_current_pid_tgid() >> 32, copied->syscall,
			    copied->direction, copied->calls, copied->bytes);
	copied->calls = copied->bytes = 0;
}

static inline void give_called(struct called *called)
{
	if (called->enters)
		tally_some(called->role, SITE_SYSCALL_ENTER, 0, called->number, called->enters,
			   0, 0);
	if (called->exits)
		tally_some(called->role, SITE_SYSCALL_EXIT, 0, called->number, called->exits, 0,
			   0);
	called->enters = called->exits = 0;
}

/* The slot for system calls of a number. */
static inline struct called *called_of(struct thread *thread, u32 number)
{
	struct called *called = &thread->called[(number ^ number >> 3) & (CALL_SLOTS - 1)];

	if (called->number != number || called->role != thread->role) {
		give_called(called);
		called->number = number;
		called->role = thread->role;
	}
	return called;
}

/* A copy in the thread's own context. */
static inline void copied_by(void *ctx, struct thread *thread, u32 role, u32 site,
			     u32 direction, u64 bytes, u64 caller)
{
	struct object_key object = booked_to(thread, direction);
	struct copied *copied = &thread->copied[(site + thread->syscall) & (SLOTS - 1)];

	if (!is_same(&copied->object, &object) || copied->caller != caller ||
	    copied->role != role || copied->site != site ||
	    copied->direction != direction || copied->syscall != thread->syscall) {
		give_copied(copied);
		copied->object = object;
		copied->caller = caller;
		copied->role = role;
		copied->site = site;
		copied->direction = direction;
		copied->syscall = thread->syscall;
		bpf_get_current_comm(thread->name, sizeof(thread->name));
	}
	copied->calls++;
	copied->bytes += bytes;
	if (role != ROLE_PROGRAM || !is_payload(site))
		return;
	thread->payload_calls++;
	thread->payload_bytes += bytes;
	add_running(thread->syscall, RUNNING_COPIED, bytes, true);
#ifdef STACKS
	note_stacks(ctx, site, direction, thread->syscall, bytes, true);
#endif
}

/* All that a thread's slots have: into the tables. */
static inline void give_all(struct thread *thread)
{
	u32 process = bpf_get_current_pid_tgid() >> 32;
	bool moved = false;

#pragma nounroll
	for (int i = 0; i < CALL_SLOTS; i++)
		give_called(&thread->called[i]);
#pragma nounroll
	for (int i = 0; i < SLOTS; i++) {
		give_copied(&thread->copied[i]);
		if (thread->moved[i].calls) {
			add_flow(&thread->moved[i], process);
			moved = true;
		}
		thread->moved[i].calls = 0;
	}
	/* Who moves without copying has a name, too. */
	if (thread->payload_calls || moved)
		add_work(thread->id, thread->payload_calls, thread->payload_bytes);
	thread->payload_calls = 0;
}

/* The current thread ends. */
static inline void thread_ends(u32 id)
{
	int slot = id & (THREAD_SLOTS - 1), first = 0;
	struct thread *thread = threads.lookup(&slot);

	if (thread && thread->id == id && id) {
		give_all(thread);
		thread->id = 0;
		claims.delete(&slot);
	}
	thread = more_threads.lookup(&id);
	if (thread) {
		give_all(thread);
		more_threads.delete(&id);
		add_u64(how_many_more.lookup(&first), -1);
	}
}

/* A thread has another number from now on; it is in the same system call still. */
static inline void renumbered(u32 former, u32 id)
{
	struct thread *thread = thread_known(former);
	u32 syscall;

	if (!thread)
		return;
	syscall = thread->syscall;
	thread_ends(former);
	thread = thread_known(id);
	if (!thread)
		thread = thread_begun(id);
	if (thread) {
		thread->syscall = syscall;
		thread->role = 0; /* to be found out */
		thread->transfer.told = 0;
	}
}
