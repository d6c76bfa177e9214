package zctrace.netty;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.DefaultFileRegion;
import io.netty.handler.stream.ChunkedFile;
import io.netty.handler.stream.ChunkedWriteHandler;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.channels.FileChannel;
import zctrace.Transfer;

/** A transfer over a channel of Netty, in the thread that is its event loop. */
abstract class NettyTransfer extends Transfer {
    final Channel channel;
    private final Netty.Loop loop;

    NettyTransfer(RandomAccessFile file, long size, long step, NettyConnection to) {
        super(file, size, step);
        this.channel = to.channel;
        this.loop = to.loop;
    }

    static Transfer of(
            String name, RandomAccessFile file, long size, long step, NettyConnection to)
            throws IOException {
        switch (name) {
            case "netty-direct-buffer":
                return new Buffered(file, size, step, to, true);
            case "netty-heap-buffer":
                return new Buffered(file, size, step, to, false);
            case "netty-composite":
                return new Merged(file, size, step, to, Merged::composite);
            case "netty-wrapped":
                return new Merged(file, size, step, to, Unpooled::wrappedBuffer);
            case "netty-copied":
                return new Merged(file, size, step, to, Unpooled::copiedBuffer);
            case "netty-slice":
                return new Sliced(file, size, step, to);
            case "netty-file-region":
            case "netty-file-region-epoll":
                return new Region(file, size, step, to);
            case "netty-chunked-file":
            case "netty-tls":
                return new Chunked(file, size, step, to);
            default:
                throw new IllegalArgumentException(name);
        }
    }

    /** Lets the event loop run until that is written. */
    final void await(ChannelFuture written) throws IOException {
        loop.await(written);
    }

    /** Reads into what the buffer has room for; {@code left} is what is still to be moved. */
    static void fill(ByteBuf buffer, FileChannel from, int bytes, long left)
            throws IOException {
        for (int wanted = bytes; wanted > 0; ) {
            int got = buffer.writeBytes(from, wanted);
            if (got <= 0) {
                throw early(left - bytes + wanted);
            }
            wanted -= got;
        }
    }

    /** One buffer in between, of Netty's own allocator. */
    private static class Buffered extends NettyTransfer {
        final FileChannel in;
        final ByteBuf buffer;

        Buffered(
                RandomAccessFile file, long size, long step, NettyConnection to,
                boolean direct) {
            super(file, size, step, to);
            in = file.getChannel();
            buffer = direct
                    ? channel.alloc().directBuffer(room()) : channel.alloc().heapBuffer(room());
        }

        @Override
        public void run() throws IOException {
            for (long left = size; left > 0; ) {
                int part = (int) Math.min(room(), left);
                fill(buffer.clear(), in, part, left);
                await(write());
                left -= part;
            }
        }

        /** Whoever writes a buffer gives it away; this one is used again. */
        ChannelFuture write() {
            return channel.writeAndFlush(buffer.retain());
        }

        @Override
        public void close() throws IOException {
            buffer.release();
            super.close();
        }
    }

    /** The same, written in parts that share its memory. */
    private static final class Sliced extends Buffered {
        Sliced(RandomAccessFile file, long size, long step, NettyConnection to) {
            super(file, size, step, to, true);
        }

        @Override
        ChannelFuture write() {
            int whole = buffer.readableBytes();
            int part = partOf(whole);
            ChannelFuture last = null;
            for (int done = 0; done < whole; done += part) {
                last = channel.write(
                        buffer.retainedSlice(done, Math.min(part, whole - done)));
            }
            channel.flush();
            return last;
        }
    }

    /** Into how many parts a payload is divided, where it is. */
    private static final int PARTS = 4;

    private static int partOf(int whole) {
        return (whole + PARTS - 1) / PARTS;
    }

    private interface Merging {
        ByteBuf merge(ByteBuf... parts);
    }

    /** Several buffers in between, which are written as one. */
    private static final class Merged extends NettyTransfer {
        private final FileChannel in;
        private final ByteBuf[] buffers = new ByteBuf[PARTS];
        private final Merging merging;

        Merged(
                RandomAccessFile file, long size, long step, NettyConnection to,
                Merging merging) {
            super(file, size, step, to);
            this.in = file.getChannel();
            this.merging = merging;
            for (int i = 0; i < PARTS; i++) {
                buffers[i] = channel.alloc().directBuffer(partOf(room()));
            }
        }

        static ByteBuf composite(ByteBuf... parts) {
            return parts[0].alloc().compositeBuffer(PARTS).addComponents(true, parts);
        }

        @Override
        public void run() throws IOException {
            for (long left = size; left > 0; ) {
                int whole = (int) Math.min(room(), left);
                int part = partOf(whole);
                for (int i = 0; i < PARTS; i++) {
                    int bytes = Math.max(0, Math.min(part, whole - i * part));
                    fill(buffers[i].clear(), in, bytes, left - (long) i * part);
                    buffers[i].retain();
                }
                ByteBuf merged = merging.merge(buffers);
                await(channel.writeAndFlush(merged));
                drop();
                left -= whole;
            }
        }

        /** What has copied them has not taken them over. */
        private void drop() {
            for (ByteBuf buffer : buffers) {
                if (buffer.refCnt() > 1) {
                    buffer.release();
                }
            }
        }

        @Override
        public void close() throws IOException {
            for (ByteBuf buffer : buffers) {
                buffer.release(buffer.refCnt());
            }
            super.close();
        }
    }

    /** No buffer: the channel has the kernel move it. */
    private static final class Region extends NettyTransfer {
        private final FileChannel in;

        Region(RandomAccessFile file, long size, long step, NettyConnection to) {
            super(file, size, step, to);
            in = file.getChannel();
        }

        @Override
        public void run() throws IOException {
            for (long done = 0; done < size; ) {
                long part = Math.min(step, size - done);
                DefaultFileRegion region = new DefaultFileRegion(in, done, part);
                // Given away, it would be closed with its last part, and the file with it.
                await(channel.writeAndFlush(region.retain()));
                done += part;
            }
        }
    }

    /** Piece by piece, by the handler that Netty has for what is too large to be written. */
    private static final class Chunked extends NettyTransfer {
        private final ChunkedFile chunks;

        Chunked(RandomAccessFile file, long size, long step, NettyConnection to)
                throws IOException {
            super(file, size, step, to);
            channel.pipeline().addLast(new ChunkedWriteHandler());
            chunks = new ChunkedFile(file, 0, size, room());
        }

        @Override
        public void run() throws IOException {
            await(channel.writeAndFlush(chunks));
        }
    }
}
