package zctrace;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;

/**
 * Does what it is told, line by line, in this one thread. The first line in is the nonce.
 *
 * <p>The first line out is this thread's number. Then there is a line in, words between blanks,
 * and a line out, which begins with {@code ok} or {@code error}, until there are no more.
 */
public final class Main {
    private static final int PR_SET_PDEATHSIG = 1;
    private static final int SIGKILL = 9;

    private final Marker marker;
    private final Controls controls;
    private Library library;
    private Connection connection;
    private Transfer transfer;

    private Main(long nonce) {
        marker = new Marker(nonce);
        controls = new Controls(marker);
    }

    public static void main(String[] arguments) throws Throwable {
        Kernel.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        Main main = new Main(Long.parseLong(in.readLine()));
        main.marker.rehearse();
        PrintStream out = System.out;
        out.println(Files.readSymbolicLink(Path.of("/proc/thread-self")).getFileName());
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(main.answer(line.split(" ")));
        }
    }

    private String answer(String[] words) {
        try {
            return "ok " + perform(words);
        } catch (Throwable error) {
            return "error " + error.getClass().getSimpleName() + " " + error.getMessage();
        }
    }

    private long perform(String[] words) throws Throwable {
        switch (words[0]) {
            case "connect":
                release();
                connection = connect(words[1], words[2], Integer.parseInt(words[3]));
                return connection.localPort();
            case "library":
                library = Library.load(words[1], Arrays.copyOfRange(words, 2, words.length));
                return 0;
            case "prepare":
                transfer = connection.prepare(words[1], new RandomAccessFile(words[2], "r"),
                        Long.parseLong(words[3]), Long.parseLong(words[4]));
                return 0;
            case "run":
                run(Integer.parseInt(words[1]), Integer.parseInt(words[2]));
                return 0;
            case "release":
                release();
                return 0;
            case "own":
                Memory.own();
                return 0;
            case "copy":
                controls.copy(words[1], Integer.parseInt(words[2]), Integer.parseInt(words[3]));
                return 0;
            case "idle":
                controls.idle(words[1], Integer.parseInt(words[2]), Integer.parseInt(words[3]));
                return 0;
            default:
                throw new IllegalArgumentException(words[0]);
        }
    }

    private Connection connect(String kind, String host, int port) throws IOException {
        switch (kind) {
            case "stream":
                return new JavaConnection(false, host, port);
            case "channel":
                return new JavaConnection(true, host, port);
            default:
                return library.connect(kind, host, port);
        }
    }

    /** In a window of that role, or in none where it is 0. */
    private void run(int role, int scope) throws Throwable {
        // A collection in the middle would take time, and maybe memory from the kernel.
        System.gc();
        if (role == 0) {
            transfer.run();
            return;
        }
        marker.open(role, scope);
        try {
            transfer.run();
        } finally {
            marker.close(role, scope);
        }
    }

    private void release() throws IOException {
        if (transfer != null) {
            transfer.close();
            transfer = null;
        }
        if (connection != null) {
            connection.close();
            connection = null;
        }
    }
}
