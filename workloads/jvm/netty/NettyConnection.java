package zctrace.netty;

import io.netty.bootstrap.Bootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelInitializer;
import io.netty.handler.ssl.SslHandler;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.net.InetSocketAddress;
import zctrace.Connection;
import zctrace.Transfer;

/** A channel of Netty, connected, and through with its handshake if it has one. */
final class NettyConnection implements Connection {
    final Netty.Loop loop;
    final Channel channel;

    NettyConnection(
            Netty.Loop loop, Class<? extends Channel> kind, SslHandler tls, String host,
            int port) throws IOException {
        this.loop = loop;
        ChannelFuture connected = new Bootstrap()
                .group(loop.events)
                .channel(kind)
                .handler(new ChannelInitializer<Channel>() {
                    @Override
                    protected void initChannel(Channel channel) {
                        if (tls != null) {
                            channel.pipeline().addLast(tls);
                        }
                    }
                })
                .connect(new InetSocketAddress(host, port));
        channel = connected.channel();
        loop.await(connected);
        if (tls != null) {
            loop.await(tls.handshakeFuture());
        }
    }

    @Override
    public int localPort() {
        return ((InetSocketAddress) channel.localAddress()).getPort();
    }

    @Override
    public Transfer prepare(String name, RandomAccessFile file, long size, long step)
            throws IOException {
        return NettyTransfer.of(name, file, size, step, this);
    }

    /** At once, without the closing message of TLS: the receiver has gone. */
    @Override
    public void close() throws IOException {
        channel.unsafe().close(channel.unsafe().voidPromise());
        loop.await(channel.closeFuture());
    }
}
