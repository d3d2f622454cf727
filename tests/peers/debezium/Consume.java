import io.debezium.transforms.ExtractNewRecordState;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.json.JsonConverter;
import org.apache.kafka.connect.sink.SinkRecord;

/**
 * What stands between a topic and a sink connector in Kafka Connect: JsonConverter, and Debezium's ExtractNewRecordState,
 * which makes rows of change events.
 *
 * <p>The argument says whether keys and values carry schemas. Input is a line for each record, key and value in base64 with a
 * blank between them. Output is a line for each: the key, a tab, and the value, as the same converter without schemas writes
 * them. The transformation needs schemas; without them the value is what was read.
 */
public final class Consume {
    private static final String TOPIC = "topic";

    public static void main(String[] arguments) throws Exception {
        // What the libraries print belongs beside the result, not in it.
        PrintStream result = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        System.setOut(System.err);
        boolean schemas = Boolean.parseBoolean(arguments[0]);
        JsonConverter keys = converter(schemas, true);
        JsonConverter values = converter(schemas, false);
        JsonConverter plainKeys = converter(false, true);
        JsonConverter plainValues = converter(false, false);
        ExtractNewRecordState<SinkRecord> unwrap = new ExtractNewRecordState<>();
        unwrap.configure(Map.of("delete.tombstone.handling.mode", "rewrite", "add.fields", "op,table,source.db"));
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] record = line.split(" ");
            SchemaAndValue key = keys.toConnectData(TOPIC, Base64.getDecoder().decode(record[0]));
            SchemaAndValue value = values.toConnectData(TOPIC, Base64.getDecoder().decode(record[1]));
            SinkRecord read =
                    new SinkRecord(TOPIC, 0, key.schema(), key.value(), value.schema(), value.value(), 0);
            SinkRecord row = schemas ? unwrap.apply(read) : read;
            byte[] keyText = plainKeys.fromConnectData(TOPIC, row.keySchema(), row.key());
            byte[] rowText = plainValues.fromConnectData(TOPIC, row.valueSchema(), row.value());
            result.println(
                    new String(keyText, StandardCharsets.UTF_8) + "\t" + new String(rowText, StandardCharsets.UTF_8));
        }
    }

    private static JsonConverter converter(boolean schemas, boolean isKey) {
        JsonConverter converter = new JsonConverter();
        converter.configure(Map.of("schemas.enable", schemas), isKey);
        return converter;
    }
}
