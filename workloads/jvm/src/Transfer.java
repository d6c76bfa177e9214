package zctrace;

import java.io.EOFException;
import java.io.IOException;
import java.io.OutputStream;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.SocketChannel;
import java.util.ArrayList;
import java.util.List;

/** One prepared transfer of {@code size} bytes, at most {@code step} with a call. */
public abstract class Transfer implements AutoCloseable {
    /** Arrays and buffers are indexed by an int; workloads/jvm/java.py knows the number, too. */
    private static final long MOST = 1 << 30;
    private static final int SPARE = 1 << 20;

    protected final RandomAccessFile file;
    protected final long size;
    protected final long step;

    protected Transfer(RandomAccessFile file, long size, long step) {
        this.file = file;
        this.size = size;
        this.step = step;
    }

    /** What an array or a buffer for a call has. */
    protected final int room() {
        return (int) Math.min(step, MOST);
    }

    static Transfer of(
            String name, RandomAccessFile file, long size, long step, JavaConnection to)
            throws IOException {
        switch (name) {
            case "java-traditional":
                return new Traditional(file, size, step, to.stream);
            case "java-mmap":
                return new Mapped(file, size, step, to.channel);
            case "java-transfer-to":
                return new TransferTo(file, size, step, to.channel);
            case "java-heap-buffer":
                return new Buffered(file, size, step, to.channel, false);
            case "java-direct-buffer":
                return new Buffered(file, size, step, to.channel, true);
            default:
                throw new IllegalArgumentException(name);
        }
    }

    /** Moves everything. Called inside the window. */
    public abstract void run() throws IOException;

    @Override
    public void close() throws IOException {
        file.close();
    }

    protected static EOFException early(long left) {
        return new EOFException("the file ended " + left + " bytes early");
    }

    /** An array in between, as the textbook's program has it. */
    private static final class Traditional extends Transfer {
        private final OutputStream out;
        private final byte[] buffer;

        Traditional(RandomAccessFile file, long size, long step, OutputStream out)
                throws IOException {
            super(file, size, step);
            this.out = out;
            this.buffer = new byte[room()];
            growMalloc();
        }

        /**
         * Reads somewhat more than a call will, as a server has done before.
         *
         * <p>A read into an array takes a buffer from malloc(3), which maps memory for the first
         * large one, keeps it from then on, and adds to it just what a call lacks. How much that
         * is depends on what else was allocated: now and then a page.
         */
        private void growMalloc() throws IOException {
            byte[] larger = new byte[buffer.length + SPARE];
            for (int i = 0; i < 2; i++) {
                file.read(larger);
                file.seek(0);
            }
        }

        @Override
        public void run() throws IOException {
            for (long left = size; left > 0; ) {
                int got = file.read(buffer, 0, (int) Math.min(buffer.length, left));
                if (got <= 0) {
                    throw early(left);
                }
                out.write(buffer, 0, got);
                left -= got;
            }
        }
    }

    /** Mapping is part of the transfer, unmapping is not. */
    private static final class Mapped extends Transfer {
        private final FileChannel in;
        private final SocketChannel out;
        private final List<ByteBuffer> maps = new ArrayList<>();

        Mapped(RandomAccessFile file, long size, long step, SocketChannel out) {
            super(file, size, step);
            this.in = file.getChannel();
            this.out = out;
        }

        @Override
        public void run() throws IOException {
            for (long done = 0; done < size; ) {
                int part = (int) Math.min(MOST, size - done);
                ByteBuffer map = in.map(FileChannel.MapMode.READ_ONLY, done, part);
                maps.add(map);
                while (map.position() < part) {
                    map.limit((int) Math.min(map.position() + step, part));
                    out.write(map);
                }
                done += part;
            }
        }

        @Override
        public void close() throws IOException {
            for (ByteBuffer map : maps) {
                Memory.unmap(map);
            }
            super.close();
        }
    }

    private static final class TransferTo extends Transfer {
        private final FileChannel in;
        private final SocketChannel out;

        TransferTo(RandomAccessFile file, long size, long step, SocketChannel out) {
            super(file, size, step);
            this.in = file.getChannel();
            this.out = out;
        }

        @Override
        public void run() throws IOException {
            for (long done = 0; done < size; ) {
                long moved = in.transferTo(done, Math.min(step, size - done), out);
                if (moved <= 0) {
                    throw early(size - done);
                }
                done += moved;
            }
        }
    }

    /** A buffer in between: an array of the heap, or memory outside of it. */
    private static final class Buffered extends Transfer {
        private final FileChannel in;
        private final SocketChannel out;
        private final ByteBuffer buffer;

        Buffered(
                RandomAccessFile file, long size, long step, SocketChannel out, boolean direct) {
            super(file, size, step);
            this.in = file.getChannel();
            this.out = out;
            this.buffer = direct
                    ? ByteBuffer.allocateDirect(room()) : ByteBuffer.allocate(room());
        }

        @Override
        public void run() throws IOException {
            for (long left = size; left > 0; ) {
                buffer.clear().limit((int) Math.min(buffer.capacity(), left));
                int got = in.read(buffer);
                if (got <= 0) {
                    throw early(left);
                }
                buffer.flip();
                while (buffer.hasRemaining()) {
                    out.write(buffer);
                }
                left -= got;
            }
        }
    }
}
