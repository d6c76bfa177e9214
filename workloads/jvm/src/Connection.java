package zctrace;

import java.io.IOException;
import java.io.RandomAccessFile;

/** A connection, and the ways of moving a file over it. */
public interface Connection extends AutoCloseable {
    int localPort();

    /** Gets the transfer of that name ready: {@code size} bytes, {@code step} with a call. */
    Transfer prepare(String name, RandomAccessFile file, long size, long step)
            throws IOException;

    @Override
    void close() throws IOException;
}
