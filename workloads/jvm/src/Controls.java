package zctrace;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/** Known amounts, copied by the thread that transfers. As workloads/exercise.py does. */
final class Controls {
    /** One on each side of 64; workloads/jvm/process.py knows the sizes, too. */
    private static final int[] SIZES = {61, 100_003};
    /** Between arrays, which takes other functions: of bytes, and of words. */
    private static final int BYTES = 70_001;
    private static final int WORDS = 10_007;
    private static final byte GO = 1;
    private static final byte DONE = 2;
    private static final byte FAILED = 3;

    private final ByteBuffer direct = ByteBuffer.allocateDirect(SIZES[1]);
    private final byte[] bytes = new byte[SIZES[1]];
    private final byte[] otherBytes = new byte[BYTES];
    private final long[] words = new long[WORDS];
    private final long[] otherWords = new long[WORDS];
    private final Marker marker;

    Controls(Marker marker) {
        this.marker = marker;
    }

    /** Writes to the file, which has room, and reads; and copies within user memory. */
    void copy(String path, int role, int scope) throws Throwable {
        try (FileChannel file = FileChannel.open(
                Path.of(path), StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            System.gc();
            if (role != 0) {
                marker.open(role, scope);
            }
            for (int size : SIZES) {
                move(file.write(direct.clear().limit(size)), size);
            }
            file.position(0);
            for (int size : SIZES) {
                move(file.read(direct.clear().limit(size)), size);
            }
            direct.clear().put(bytes);
            System.arraycopy(bytes, 0, otherBytes, 0, BYTES);
            System.arraycopy(words, 0, otherWords, 0, WORDS);
            if (role != 0) {
                marker.close(role, scope);
            }
        }
    }

    /** Lets another process work in an open window; they meet in the file that is mapped. */
    void idle(String path, int role, int scope) throws Throwable {
        MappedByteBuffer stage;
        try (FileChannel file = FileChannel.open(
                Path.of(path), StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            stage = file.map(FileChannel.MapMode.READ_WRITE, 0, 1);
        }
        System.gc();
        byte now = stage.get(0);
        // What runs first is linked, for which names are copied.
        Thread.yield();
        stage.put(0, now);
        marker.open(role, scope);
        stage.put(0, GO);
        while (now != DONE && now != FAILED) {
            Thread.yield();
            now = stage.get(0);
        }
        marker.close(role, scope);
        if (now == FAILED) {
            throw new IOException("the neighbouring process failed");
        }
    }

    private static void move(int moved, int size) throws IOException {
        if (moved != size) {
            throw new IOException("a control moved " + moved + " bytes instead of " + size);
        }
    }
}
