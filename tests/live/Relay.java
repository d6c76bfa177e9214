import java.io.FileInputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.nio.channels.FileChannel;
import java.nio.channels.SocketChannel;

/** Sends a file to a port of this host: {@code stream FILE PORT} or {@code channel FILE PORT}. */
final class Relay {
    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[2]);
        try (FileInputStream file = new FileInputStream(arguments[1]);
                SocketChannel socket =
                        SocketChannel.open(new InetSocketAddress("127.0.0.1", port))) {
            if (arguments[0].equals("stream")) {
                OutputStream out = socket.socket().getOutputStream();
                byte[] piece = new byte[131072];
                for (int many; (many = file.read(piece)) > 0; ) {
                    out.write(piece, 0, many);
                }
            } else {
                FileChannel channel = file.getChannel();
                for (long at = 0, size = channel.size(); at < size; ) {
                    at += channel.transferTo(at, size - at, socket);
                }
            }
        }
    }
}
