import java.time.Duration;
import java.time.LocalDateTime;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.apache.fluss.client.Connection;
import org.apache.fluss.client.ConnectionFactory;
import org.apache.fluss.client.admin.Admin;
import org.apache.fluss.client.admin.OffsetSpec;
import org.apache.fluss.client.table.Table;
import org.apache.fluss.client.table.scanner.Scan;
import org.apache.fluss.client.table.scanner.ScanRecord;
import org.apache.fluss.client.table.scanner.log.LogScanner;
import org.apache.fluss.client.table.writer.AppendWriter;
import org.apache.fluss.config.Configuration;
import org.apache.fluss.metadata.DatabaseDescriptor;
import org.apache.fluss.metadata.Schema;
import org.apache.fluss.metadata.TableDescriptor;
import org.apache.fluss.metadata.TablePath;
import org.apache.fluss.row.BinaryString;
import org.apache.fluss.row.GenericRow;
import org.apache.fluss.row.InternalRow;
import org.apache.fluss.row.TimestampNtz;
import org.apache.fluss.types.DataTypes;

/**
 * What the official Java client does with a log table, one step an argument, for a test to read.
 *
 * <p>Usage: Smoke BOOTSTRAP DATABASE STEP... It prints what each step saw, and ends with status 1 at the first error.
 */
public final class Smoke {
    private static final Duration PATIENCE = Duration.ofSeconds(30);
    private static final int BULK = 20_000; // more than one batch of the client

    private final Connection connection;
    private final Admin admin;
    private final String database;
    private final TablePath path;

    private Smoke(Connection connection, String database) {
        this.connection = connection;
        this.admin = connection.getAdmin();
        this.database = database;
        this.path = TablePath.of(database, "smoke");
    }

    public static void main(String[] arguments) throws Exception {
        Configuration configuration = new Configuration();
        configuration.setString("bootstrap.servers", arguments[0]);
        try (Connection connection = ConnectionFactory.createConnection(configuration)) {
            Smoke smoke = new Smoke(connection, arguments[1]);
            for (String step : List.of(arguments).subList(2, arguments.length)) {
                smoke.run(step);
            }
        }
    }

    private void run(String step) throws Exception {
        switch (step) {
            case "create":
                create();
                break;
            case "append":
                append();
                break;
            case "bulk":
                bulk();
                break;
            case "scan":
                scan();
                break;
            case "project":
                project();
                break;
            case "count":
                count();
                break;
            case "offsets":
                offsets();
                break;
            case "drop":
                drop();
                break;
            default:
                throw new IllegalArgumentException(step);
        }
    }

    private void create() throws Exception {
        admin.createDatabase(database, DatabaseDescriptor.EMPTY, true).get(30, TimeUnit.SECONDS);
        System.out.println("database exists: " + admin.databaseExists(database).get());
        Schema schema =
                Schema.newBuilder()
                        .column("id", DataTypes.INT())
                        .column("name", DataTypes.STRING())
                        .column("score", DataTypes.DOUBLE())
                        .column("born", DataTypes.TIMESTAMP(3))
                        .build();
        TableDescriptor descriptor = TableDescriptor.builder().schema(schema).distributedBy(1).build();
        admin.createTable(path, descriptor, false).get(30, TimeUnit.SECONDS);
        System.out.println("tables: " + admin.listTables(database).get());
        System.out.println("columns: " + admin.getTableInfo(path).get().getSchema().getColumnNames());
    }

    private void append() throws Exception {
        try (Table table = connection.getTable(path)) {
            AppendWriter writer = table.newAppend().createWriter();
            for (int i = 0; i < 5; i++) {
                Object name = i == 3 ? null : BinaryString.fromString("name " + i);
                writer.append(GenericRow.of(i, name, i / 2.0, born(i)));
            }
            writer.flush();
        }
        System.out.println("appended: 5");
    }

    private void bulk() throws Exception {
        try (Table table = connection.getTable(path)) {
            AppendWriter writer = table.newAppend().createWriter();
            for (int i = 0; i < BULK; i++) {
                writer.append(GenericRow.of(i, BinaryString.fromString("x".repeat(i % 300)), 0.0, born(i)));
            }
            writer.flush();
        }
        System.out.println("appended: " + BULK);
    }

    private static TimestampNtz born(int day) {
        return TimestampNtz.fromLocalDateTime(LocalDateTime.of(2024, 1, 1, 12, 0).plusDays(day));
    }

    private void scan() throws Exception {
        for (ScanRecord record : poll(scanOf(), latest())) {
            InternalRow row = record.getRow();
            String name = row.isNullAt(1) ? "null" : row.getString(1).toString();
            System.out.printf(
                    "%d: %s %d, %s, %s, %s%n",
                    record.logOffset(),
                    record.getChangeType(),
                    row.getInt(0),
                    name,
                    row.getDouble(2),
                    row.getTimestampNtz(3, 3).toLocalDateTime());
        }
    }

    private void project() throws Exception {
        for (ScanRecord record : poll(scanOf().project(new int[] {1}), latest())) {
            InternalRow row = record.getRow();
            String name = row.isNullAt(0) ? "null" : row.getString(0).toString();
            System.out.printf("%d: %s of %d column%n", record.logOffset(), name, row.getFieldCount());
        }
    }

    private void count() throws Exception {
        long end = latest();
        System.out.println("scanned: " + poll(scanOf(), end).size() + " of " + end);
        System.out.println("projected: " + poll(scanOf().project(List.of("name")), end).size() + " of " + end);
    }

    private void offsets() throws Exception {
        OffsetSpec earliest = new OffsetSpec.EarliestSpec();
        System.out.println("offsets: " + admin.listOffsets(path, List.of(0), earliest).all().get() + " to " + latest());
    }

    private void drop() throws Exception {
        admin.dropTable(path, false).get(30, TimeUnit.SECONDS);
        System.out.println("tables: " + admin.listTables(database).get());
        admin.dropDatabase(database, false, false).get(30, TimeUnit.SECONDS);
        System.out.println("database exists: " + admin.databaseExists(database).get());
    }

    private long latest() throws Exception {
        return admin.listOffsets(path, List.of(0), new OffsetSpec.LatestSpec()).bucketResult(0).get();
    }

    private Scan scanOf() {
        return connection.getTable(path).newScan();
    }

    /** All records from the earliest offset to *end*. */
    private static List<ScanRecord> poll(Scan scan, long end) throws Exception {
        List<ScanRecord> found = new java.util.ArrayList<>();
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        try (LogScanner scanner = scan.createLogScanner()) {
            scanner.subscribeFromBeginning(0);
            while (found.isEmpty() ? end > 0 : found.get(found.size() - 1).logOffset() < end - 1) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException(found.size() + " records came, expected up to offset " + end);
                }
                scanner.poll(Duration.ofMillis(500)).forEach(found::add);
            }
        }
        return found;
    }
}
