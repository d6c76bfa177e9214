/*
 * What devices move by themselves: a disk's requests, packets handed to a network
 * device, and what drivers map for DMA.
 *
 * A mapping names a device, not a transfer: mappings are only added up, by device, while
 * tracked work is pending. They tell whether what was handed to a driver went by DMA.
 */

/* For whom this processor is inside a driver's transmit function. */
BPF_PERCPU_ARRAY(transmitting, u32, 1);

/*
 * Tracepoint swiotlb:swiotlb_bounced: a device cannot reach the memory, and the processor
 * copies for it, to or from a bounce buffer.
 */
int on_bounced(void *ctx)
{
	int first = 0;
	u32 *inside = transmitting.lookup(&first);
	u32 role = inside && *inside ? *inside : role_of_work();

	if (role)
		tally_as(role, SITE_BOUNCED, KERNEL_TO_KERNEL, NO_SYSCALL,
			 *(u64 *)(ctx + BOUNCED_SIZE), 0);
	return 0;
}

/* Of a traced program it is not asked which disk and which card its bytes came by. */
#ifndef FLOWS

struct request_key {
	u64 sector;
	u64 operation; /* letters, as the block layer spells them: R, RA, RM, W, ... */
	u32 role;
	u32 device;
	u32 bytes;
	u32 pad;
};

#define DEVICE_NAME_BYTES 32

struct mapping_key {
	u32 role;
	u32 direction; /* DMA_BIDIRECTIONAL 0, DMA_TO_DEVICE 1, DMA_FROM_DEVICE 2 */
	char device[DEVICE_NAME_BYTES];
};

/* How often each request was issued, less how often it was put back. */
BPF_HASH(requests, struct request_key, u64, MAX_REQUESTS);
BPF_HASH(mappings, struct mapping_key, struct tally, MAX_MAPPINGS);
static inline void requested(struct request_key *key, s64 times)
{
	u64 nothing = 0, *count;

	key->role = role_of_work();
	if (!key->role)
		return;
	count = requests.lookup_or_try_init(key, &nothing);
	if (count)
		__sync_fetch_and_add(count, times);
	else
		count_lost(LOST_REQUEST);
}

/*
 * Tracepoint block:block_rq_issue: the driver gets a request of so many bytes. Mostly in
 * the thread that wants them, but any thread that runs the queue may issue it.
 */
int on_request_issued(void *ctx)
{
	struct request_key key = {
		.sector = *(u64 *)(ctx + REQUEST_SECTOR),
		.device = *(u32 *)(ctx + REQUEST_DEVICE),
		.bytes = *(u32 *)(ctx + REQUEST_BYTES),
	};

	bpf_probe_read_kernel(&key.operation, sizeof(key.operation), ctx + REQUEST_OPERATION);
	requested(&key, 1);
	return 0;
}

/* Tracepoint block:block_rq_requeue: the driver gave it back, and will get it again. */
int on_request_put_back(void *ctx)
{
	struct request_key key = {
		.sector = *(u64 *)(ctx + REQUEUE_SECTOR),
		.device = *(u32 *)(ctx + REQUEUE_DEVICE),
		.bytes = *(u32 *)(ctx + REQUEUE_SECTORS) * 512,
	};

	bpf_probe_read_kernel(&key.operation, sizeof(key.operation), ctx + REQUEUE_OPERATION);
	requested(&key, -1);
	return 0;
}

static inline u8 byte_at(u64 structure, s32 offset)
{
	u8 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(structure + offset));
	return value;
}

#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

/* Bytes of a packet in front of its payload; all of it where the protocol is unknown. */
static inline u32 headers_of(u64 skb, u32 length, s32 network, s32 transport)
{
	u64 data = u64_at(skb, SKB_DATA);
	u8 version = byte_at(data, network) >> 4, protocol = 0;
	u32 headers = length;

	if (version == 4)
		protocol = byte_at(data, network + 9);
	else if (version == 6)
		protocol = byte_at(data, network + 6);
	if (protocol == PROTOCOL_TCP)
		headers = transport + 4 * (byte_at(data, transport + 12) >> 4);
	else if (protocol == PROTOCOL_UDP)
		headers = transport + 8;
	return headers < length ? headers : length;
}

#define NO_HEADER 0xFFFF /* the place of a header that is not set */

/*
 * Raw tracepoint net:net_dev_start_xmit(skb, device): a network device's driver gets a
 * packet. Counts its payload and its headers apart, by the device's number in its namespace.
 */
int on_transmit(void *ctx)
{
	u64 skb = *(u64 *)ctx;
	u32 length = u32_at(skb, SKB_LEN), transport = u16_at(skb, SKB_TRANSPORT);
	s32 room = u64_at(skb, SKB_DATA) - u64_at(skb, SKB_HEAD);
	u32 role = owner_of(skb), headers = length, number;
	int first = 0;
	u32 *inside = transmitting.lookup(&first);

	if (!role && pending_role())
		role = ROLE_UNATTRIBUTED | pending_role();
	if (inside)
		*inside = role;
	if (!role)
		return 0;
	number = u32_at(u64_at(skb, SKB_DEVICE), DEVICE_NUMBER);
	if (transport != NO_HEADER)
		headers = headers_of(skb, length, u16_at(skb, SKB_NETWORK) - room,
				     transport - room);
	if (length > headers)
		tally_as(role, SITE_TRANSMIT_PAYLOAD, 0, NO_SYSCALL, length - headers, number);
	tally_as(role, SITE_TRANSMIT_HEADERS, 0, NO_SYSCALL, headers, number);
	return 0;
}

/* Raw tracepoint net:net_dev_xmit: the driver's transmit function has returned. */
int on_transmitted(void *ctx)
{
	int first = 0;
	u32 *inside = transmitting.lookup(&first);

	if (inside)
		*inside = 0;
	return 0;
}

static inline void mapped(u64 device, u64 bytes, u32 direction)
{
	struct mapping_key key = {.role = pending_role(), .direction = direction};
	struct tally nothing = {}, *cell;

	if (!key.role)
		return;
	bpf_probe_read_kernel_str(key.device, sizeof(key.device),
				  (void *)u64_at(device, DEVICE_NAME));
	cell = mappings.lookup_or_try_init(&key, &nothing);
	if (!cell) {
		count_lost(LOST_MAPPING);
		return;
	}
	add_u64(&cell->calls, 1);
	add_u64(&cell->bytes, bytes);
}

/* Entry of dma_map_page_attrs(device, page, offset, size, direction, attributes). */
int on_page_mapped(struct pt_regs *ctx)
{
	mapped(ctx->di, ctx->cx, ctx->r8);
	return 0;
}

int on_fentry_page_mapped(void *ctx)
{
	struct arguments of = arguments_of(ctx);

	mapped(of.di, of.cx, of.r8);
	return 0;
}

/* Entry of dma_map_phys(device, address, size, direction, attributes). */
int on_address_mapped(struct pt_regs *ctx)
{
	mapped(ctx->di, ctx->dx, ctx->cx);
	return 0;
}

int on_fentry_address_mapped(void *ctx)
{
	struct arguments of = arguments_of(ctx);

	mapped(of.di, of.dx, of.cx);
	return 0;
}

#define SCATTERED_AT_ONCE 128
#define IS_CHAIN 1UL
#define CHAIN_MASK 3UL

/* A stretch of a struct scatterlist, copied to where it can be read without a helper. */
struct stretch {
	char entries[SCATTERED_AT_ONCE * SCATTER_BYTES];
};

BPF_PERCPU_ARRAY(stretches, struct stretch, 1);

struct walk {
	u64 at;   /* where the list goes on; 0 where it does not */
	u64 left; /* entries to come */
	u64 bytes;
};

/*
 * The next stretch of a list: one array of entries, whose last may point to another. No
 * branches: the verifier would have to try every combination of turns. The empty assembly
 * keeps the compiler from making one out of a mask.
 */
static inline void walk_on(struct walk *walk)
{
	int first = 0;
	struct stretch *stretch = stretches.lookup(&first);
	u64 active = ~0UL, next = 0, left = walk->left, bytes = walk->bytes;

	if (!stretch)
		return;
	bpf_probe_read_kernel(stretch, sizeof(*stretch), (void *)walk->at);
#pragma nounroll
	for (int i = 0; i < SCATTERED_AT_ONCE; i++) {
		u64 link = *(u64 *)&stretch->entries[i * SCATTER_BYTES];
		u64 chain = -(link & IS_CHAIN), minus = -left;

		asm volatile("" : "+r"(chain), "+r"(minus));
		/* All ones as long as entries are left, and none before was the last. */
		active &= (s64)minus >> 63;
		next |= link & ~CHAIN_MASK & chain & active;
		active &= ~chain;
		bytes += *(u32 *)&stretch->entries[i * SCATTER_BYTES + SCATTER_LENGTH] & active;
		left -= active & 1;
	}
	walk->at = next;
	walk->left = left;
	walk->bytes = bytes;
}

/* Entry of __dma_map_sg_attrs(device, list, entries, direction, attributes). */
static inline int list_mapped(u64 device, u64 list, u32 entries, u32 direction)
{
	struct walk walk = {.at = list, .left = entries};

	if (!pending_role())
		return 0;
	walk_on(&walk);
	if (walk.left && walk.at)
		walk_on(&walk);
	if (walk.left)
		count_lost(LOST_MAPPING);
	mapped(device, walk.bytes, direction);
	return 0;
}

int on_list_mapped(struct pt_regs *ctx)
{
	return list_mapped(ctx->di, ctx->si, ctx->dx, ctx->cx);
}

int on_fentry_list_mapped(void *ctx)
{
	struct arguments of = arguments_of(ctx);

	return list_mapped(of.di, of.si, of.dx, of.cx);
}

#endif
