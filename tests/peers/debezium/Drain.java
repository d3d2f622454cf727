import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.DebeziumEngine.ChangeConsumer;
import io.debezium.engine.DebeziumEngine.RecordCommitter;
import io.debezium.engine.format.Json;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * Debezium's engine, embedded, as a peer of the benchmark: it drains a slot of PostgreSQL, makes JSON of every change and
 * hands it to a consumer that only counts. Nothing is sent anywhere and offsets are kept in memory, so this is the least
 * that Debezium does for a change, whatever it runs in.
 *
 * <p>Arguments: host, port, user, password, database, slot (of pgoutput, there already), publication, and how many changes to
 * wait for. Further ones, each name=value, are properties of the engine and its connector that go over those here. Writes one
 * line: records=… seconds=… peak_kib=…, where seconds is from the first batch of records to the last, and peak_kib the
 * largest resident size of this process so far.
 */
public final class Drain implements ChangeConsumer<ChangeEvent<String, String>> {
    private final long expected;
    private final CountDownLatch done = new CountDownLatch(1);
    private long records;
    private long bytes;
    private long firstNanos;
    private long lastNanos;

    private Drain(long expected) {
        this.expected = expected;
    }

    @Override
    public void handleBatch(
            List<ChangeEvent<String, String>> batch, RecordCommitter<ChangeEvent<String, String>> committer)
            throws InterruptedException {
        if (records == 0) {
            firstNanos = System.nanoTime();
        }
        for (ChangeEvent<String, String> event : batch) {
            // Heartbeats and tombstones are switched off, so that each record is a change.
            records += 1;
            bytes += event.value().length();
            committer.markProcessed(event);
        }
        committer.markBatchFinished();
        lastNanos = System.nanoTime();
        if (records >= expected) {
            done.countDown();
        }
    }

    public static void main(String[] arguments) throws Exception {
        // What the libraries print belongs beside the result, not in it.
        PrintStream result = System.out;
        System.setOut(System.err);
        if (arguments.length < 8) {
            System.err.println("usage: run host port user password database slot publication count [property=value...]");
            System.exit(2);
        }
        Drain drain = new Drain(Long.parseLong(arguments[7]));
        DebeziumEngine<ChangeEvent<String, String>> engine =
                DebeziumEngine.create(Json.class)
                        .using(properties(arguments))
                        .using(
                                (success, message, error) -> {
                                    if (!success) {
                                        System.err.println(message);
                                        if (error != null) {
                                            error.printStackTrace();
                                        }
                                        Runtime.getRuntime().halt(1);
                                    }
                                })
                        .notifying(drain)
                        .build();
        Thread runner = new Thread(engine, "engine");
        runner.start();
        long reported = 0;
        while (!drain.done.await(60, TimeUnit.SECONDS)) {
            // Read without a lock: an old figure only makes this wait once more.
            if (drain.records == reported) {
                System.err.printf("no records for a minute; %d of %d have come%n", drain.records, drain.expected);
                Runtime.getRuntime().halt(1);
            }
            reported = drain.records;
        }
        long peakKib = peakKib();
        double seconds = (drain.lastNanos - drain.firstNanos) / 1e9;
        System.err.printf("%d bytes of JSON%n", drain.bytes);
        result.printf(Locale.ROOT, "records=%d seconds=%.3f peak_kib=%d%n", drain.records, seconds, peakKib);
        result.flush();
        engine.close();
        runner.join();
    }

    private static Properties properties(String[] arguments) {
        Properties properties = new Properties();
        properties.putAll(
                Map.ofEntries(
                        Map.entry("name", "drain"),
                        Map.entry("connector.class", "io.debezium.connector.postgresql.PostgresConnector"),
                        Map.entry("database.hostname", arguments[0]),
                        Map.entry("database.port", arguments[1]),
                        Map.entry("database.user", arguments[2]),
                        Map.entry("database.password", arguments[3]),
                        Map.entry("database.dbname", arguments[4]),
                        Map.entry("plugin.name", "pgoutput"),
                        Map.entry("slot.name", arguments[5]),
                        Map.entry("publication.name", arguments[6]),
                        Map.entry("publication.autocreate.mode", "disabled"),
                        Map.entry("snapshot.mode", "no_data"),
                        Map.entry("topic.prefix", "drain"),
                        Map.entry("tombstones.on.delete", "false"),
                        Map.entry("offset.storage", "org.apache.kafka.connect.storage.MemoryOffsetBackingStore"),
                        // Each record would carry its table's schema otherwise, several times its own size.
                        Map.entry("converter.schemas.enable", "false")));
        for (int i = 8; i < arguments.length; i++) {
            String[] property = arguments[i].split("=", 2);
            properties.setProperty(property[0], property.length == 2 ? property[1] : "");
        }
        return properties;
    }

    private static long peakKib() throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("[^0-9]", ""));
            }
        }
        throw new IOException("/proc/self/status does not tell the peak");
    }
}
