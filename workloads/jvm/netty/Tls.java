package zctrace.netty;

import io.netty.buffer.ByteBufAllocator;
import io.netty.handler.ssl.SslContext;
import io.netty.handler.ssl.SslContextBuilder;
import io.netty.handler.ssl.SslHandler;
import io.netty.handler.ssl.SslProvider;
import io.netty.handler.ssl.util.InsecureTrustManagerFactory;
import java.io.IOException;

/** The client's side of TLS, by Java's own engine. */
final class Tls {
    private static SslContext context;

    private Tls() {}

    /** For one connection, to anybody: what is measured is not who it is. */
    static SslHandler handler() throws IOException {
        if (context == null) {
            context = SslContextBuilder.forClient()
                    .sslProvider(SslProvider.JDK)
                    .trustManager(InsecureTrustManagerFactory.INSTANCE)
                    .endpointIdentificationAlgorithm(null)
                    .build();
        }
        return context.newHandler(ByteBufAllocator.DEFAULT);
    }
}
