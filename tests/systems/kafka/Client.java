import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * A client that does one thing after the other, as lines on standard input say, and answers
 * each with a line: {@code ok} and a number of bytes, or {@code failed} and why.
 *
 * <pre>
 * topic NAME COMPRESSION            made, with one partition
 * produce NAME CODEC KIND COUNT     so many records of that kind, {@code random} or {@code half}
 * consume NAME PORT COUNT           all of them, in plaintext or, at the TLS port, over TLS
 * </pre>
 *
 * Records have {@link #SIZE} bytes each. The first four are the record's number, the fifth is
 * its kind; the rest is made from these, so that whoever reads it knows whether each byte is
 * right, and in its place.
 */
public final class Client {
    private static final int SIZE = 64 << 10;
    private static final String HOST = "127.0.0.1:";
    private static final Duration PATIENCE = Duration.ofSeconds(120);

    private final String plain;
    private final String tls;
    private final Map<String, Object> trust;

    private Client(String plain, String tls, String store, String password) {
        this.plain = plain;
        this.tls = tls;
        trust =
                Map.of(
                        "security.protocol", "SSL",
                        "ssl.truststore.location", store,
                        "ssl.truststore.type", "PKCS12",
                        "ssl.truststore.password", password);
    }

    /** Takes the two ports, and a certificate store with its password. */
    public static void main(String[] arguments) throws Exception {
        var client = new Client(arguments[0], arguments[1], arguments[2], arguments[3]);
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = lines.readLine()) != null; ) {
            try {
                System.out.println("ok " + client.perform(line.split(" ")));
            } catch (Exception failure) {
                failure.printStackTrace();
                System.out.println("failed " + failure);
            }
            System.out.flush();
        }
    }

    private long perform(String[] words) throws Exception {
        return switch (words[0]) {
            case "topic" -> topic(words[1], words[2]);
            case "produce" -> produce(words[1], words[2], words[3], Integer.parseInt(words[4]));
            case "consume" -> consume(words[1], words[2], Integer.parseInt(words[3]));
            default -> throw new IllegalArgumentException(words[0]);
        };
    }

    private long topic(String name, String compression) throws Exception {
        var settings =
                Map.<String, Object>of(
                        "bootstrap.servers", HOST + plain,
                        "default.api.timeout.ms", (int) PATIENCE.toMillis());
        try (var admin = Admin.create(settings)) {
            var topic =
                    new NewTopic(name, 1, (short) 1)
                            .configs(Map.of("compression.type", compression));
            admin.createTopics(List.of(topic)).all().get();
        }
        return 0;
    }

    private long produce(String topic, String codec, String kind, int count) throws Exception {
        Map<String, Object> settings =
                Map.of(
                        "bootstrap.servers", HOST + plain,
                        "acks", "all",
                        "compression.type", codec,
                        "batch.size", 512 << 10,
                        "linger.ms", 50,
                        "delivery.timeout.ms", (int) PATIENCE.toMillis());
        long bytes = 0;
        try (var producer =
                new KafkaProducer<>(
                        settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            @SuppressWarnings({"unchecked", "rawtypes"})
            Future<RecordMetadata>[] sent = new Future[count];
            for (int number = 0; number < count; number++) {
                byte[] value = record(kind, number);
                bytes += value.length;
                sent[number] = producer.send(new ProducerRecord<>(topic, 0, null, value));
            }
            for (int number = 0; number < count; number++) {
                if (sent[number].get().offset() != number) {
                    throw new IllegalStateException("record " + number + " is elsewhere");
                }
            }
        }
        return bytes;
    }

    private long consume(String topic, String port, int count) {
        var settings = new HashMap<String, Object>();
        settings.put("bootstrap.servers", HOST + port);
        settings.put("enable.auto.commit", false);
        settings.put("auto.offset.reset", "earliest");
        if (port.equals(tls)) {
            settings.putAll(trust);
        }
        long bytes = 0;
        int number = 0;
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        try (var consumer =
                new KafkaConsumer<>(
                        settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            var partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            while (number < count) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException(number + " of " + count + " records came");
                }
                for (ConsumerRecord<byte[], byte[]> record :
                        consumer.poll(Duration.ofMillis(500))) {
                    check(record, number++);
                    bytes += record.value().length;
                }
            }
        }
        return bytes;
    }

    private static void check(ConsumerRecord<byte[], byte[]> record, int number) {
        byte[] value = record.value();
        var kind = value[Integer.BYTES] == 0 ? "random" : "half";
        if (record.offset() != number || !Arrays.equals(value, record(kind, number))) {
            throw new IllegalStateException("not what was sent: record " + number);
        }
    }

    /** Bytes that nothing compresses; or half of them, before one byte again and again. */
    private static byte[] record(String kind, int number) {
        byte[] value = new byte[SIZE];
        new Random(number).nextBytes(value);
        boolean random = kind.equals("random");
        if (!random) {
            Arrays.fill(value, SIZE / 2, SIZE, (byte) number);
        }
        value[Integer.BYTES] = (byte) (random ? 0 : 1);
        ByteBuffer.wrap(value).putInt(number);
        return value;
    }
}
