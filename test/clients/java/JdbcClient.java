/** One task: the features of pgJDBC. */
import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import javax.net.ssl.SSLHandshakeException;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.ds.PGPoolingDataSource;
import org.postgresql.util.PSQLException;

public final class JdbcClient {
  private interface Work {
    void run(Connection connection, Report.Endpoint to) throws Exception;
  }

  private interface Failing {
    void run() throws Exception;
  }

  private static String addressOf(Report.Endpoint to) {
    return "jdbc:postgresql://" + to.host() + ":" + to.port() + "/" + to.database();
  }

  private static Connection connect(Report.Endpoint to, String password) throws SQLException {
    return DriverManager.getConnection(addressOf(to), to.user(), password);
  }

  /** Encrypted, and only with a server that this authority has certified. */
  private static Object askVerified(Report.Endpoint to, String authority) throws SQLException {
    String url = addressOf(to) + "?sslmode=verify-full&sslrootcert=" + authority;
    try (Connection connection = DriverManager.getConnection(url, to.user(), to.password())) {
      return ask(connection, "SELECT 1");
    }
  }

  /** Makes a feature of what needs one connection. */
  private static Report.Feature with(Work work) {
    return to -> {
      try (Connection connection = connect(to, to.password())) {
        work.run(connection, to);
      }
    };
  }

  private static PSQLException failureOf(Failing work) throws Exception {
    try {
      work.run();
    } catch (PSQLException error) {
      return error;
    }
    throw new AssertionError("it did not fail");
  }

  private static void execute(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.execute(sql);
    }
  }

  /** The only value of the only row. */
  private static Object ask(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(sql)) {
      rows.next();
      return rows.getObject(1);
    }
  }

  private static void insertItem(Connection connection, int id) throws SQLException {
    execute(connection, "INSERT INTO " + Report.ITEMS + " VALUES (" + id + ", 'note')");
  }

  private static void login(Connection connection, Report.Endpoint to) throws Exception {
    Report.same(ask(connection, "SELECT current_user::text"), to.user());
    Report.same(failureOf(() -> connect(to, "wrong").close()).getSQLState(), "28P01");
  }

  private static void tls(Report.Endpoint to) throws Exception {
    Report.same(askVerified(to, Report.TRUSTED_CA), 1);
    Throwable cause = failureOf(() -> askVerified(to, Report.OTHER_CA)).getCause();
    Report.same(cause instanceof SSLHandshakeException, true);
  }

  private static void prepared(Connection connection, Report.Endpoint to) throws Exception {
    // From the fifth time on the server keeps the statement under a name.
    try (PreparedStatement twice = connection.prepareStatement("SELECT ?::integer * 2");
        PreparedStatement word = connection.prepareStatement("SELECT ?::text || 'n'")) {
      for (int n = 0; n < 20; n++) {
        twice.setInt(1, n);
        word.setString(1, "" + n);
        Report.same(single(twice), 2 * n);
        Report.same(single(word), n + "n");
      }
    }
    execute(connection, "DELETE FROM " + Report.ITEMS);
    try (PreparedStatement batch = connection.prepareStatement("INSERT INTO " + Report.ITEMS + " VALUES (?, ?)")) {
      for (int n = 0; n < 200; n++) {
        batch.setInt(1, n);
        batch.setString(2, "note");
        batch.addBatch();
      }
      Report.same(Arrays.stream(batch.executeBatch()).sum(), 200);
    }
  }

  private static Object single(PreparedStatement statement) throws SQLException {
    try (ResultSet rows = statement.executeQuery()) {
      rows.next();
      return rows.getObject(1);
    }
  }

  private static void transactions(Connection connection, Report.Endpoint to) throws Exception {
    String ids = "SELECT string_agg(id::text, ',' ORDER BY id) FROM " + Report.ITEMS;
    execute(connection, "DELETE FROM " + Report.ITEMS);
    connection.setAutoCommit(false);
    insertItem(connection, 1);
    connection.rollback();
    Report.same(ask(connection, ids), null);
    insertItem(connection, 1);
    Savepoint here = connection.setSavepoint();
    Report.same(failureOf(() -> insertItem(connection, 1)).getSQLState(), "23505");
    connection.rollback(here);
    insertItem(connection, 2);
    connection.commit();
    Report.same(ask(connection, ids), "1,2");
    fetchInParts(connection);
    connection.commit();
  }

  /** With a fetch size the driver reads a portal part by part. */
  private static void fetchInParts(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.setFetchSize(7);
      try (ResultSet rows = statement.executeQuery("SELECT generate_series(1, 100)")) {
        int sum = 0;
        while (rows.next()) sum += rows.getInt(1);
        Report.same(sum, 5050);
      }
    }
  }

  private static void copy(Connection connection, Report.Endpoint to) throws Exception {
    StringBuilder lines = new StringBuilder();
    for (int n = 1; n <= 1000; n++) lines.append(n).append("\tnote ").append(n).append(" é\n");
    execute(connection, "DELETE FROM " + Report.ITEMS);
    var copies = connection.unwrap(PGConnection.class).getCopyAPI();
    Report.same(copies.copyIn("COPY " + Report.ITEMS + " FROM STDIN", new StringReader(lines.toString())), 1000L);
    StringWriter out = new StringWriter();
    copies.copyOut("COPY (SELECT * FROM " + Report.ITEMS + " ORDER BY id) TO STDOUT", out);
    Report.same(out.toString(), lines.toString());
  }

  private static void notify(Connection connection, Report.Endpoint to) throws Exception {
    execute(connection, "LISTEN " + Report.CLIENT);
    with((other, same) -> execute(other, "NOTIFY " + Report.CLIENT + ", 'hello'")).run(to);
    PGNotification[] heard = connection.unwrap(PGConnection.class).getNotifications(to.notifyWaitMs());
    Report.same(heard == null ? 0 : heard.length, 1);
    Report.same(heard[0].getParameter(), "hello");
  }

  private static void cancel(Connection connection, Report.Endpoint to) throws Exception {
    try (Statement statement = connection.createStatement()) {
      Callable<PSQLException> sleeping = () -> failureOf(() -> statement.execute(Report.SLEEP));
      CompletableFuture<PSQLException> failed = CompletableFuture.supplyAsync(() -> unchecked(sleeping));
      with((other, same) -> {
        while (!Integer.valueOf(1).equals(ask(other, Report.RUNNING))) Thread.sleep(20);
      }).run(to);
      statement.cancel();
      Report.same(failed.get().getSQLState(), "57014");
    }
    Report.same(ask(connection, "SELECT 1"), 1);
  }

  private static <T> T unchecked(Callable<T> work) {
    try {
      return work.call();
    } catch (Exception error) {
      throw new IllegalStateException(error);
    }
  }

  private static void types(Connection connection, Report.Endpoint to) throws Exception {
    Object[] values = {
      1,
      -32768,
      9007199254740993L,
      new BigDecimal("1234.5600"),
      0.1,
      true,
      "it's é\n",
      new byte[] {0, 1, 92, -1},
      UUID.fromString("01234567-89ab-cdef-0123-456789abcdef"),
      LocalDate.of(2026, 2, 28),
      OffsetDateTime.of(2026, 2, 28, 23, 59, 59, 123456000, ZoneOffset.UTC),
    };
    execute(connection, "DELETE FROM " + Report.TYPES);
    String places = "?, ".repeat(values.length) + "?::jsonb";
    try (PreparedStatement into = connection.prepareStatement("INSERT INTO " + Report.TYPES + " VALUES (" + places + ")")) {
      for (int at = 0; at < values.length; at++) into.setObject(at + 1, values[at]);
      into.setString(values.length + 1, "{\"a\": [1, null, \"é\"]}");
      into.execute();
    }
    try (PreparedStatement from = connection.prepareStatement("SELECT * FROM " + Report.TYPES)) {
      // Often enough for the server to keep it, and answer in binary from then on.
      for (int time = 0; time < 7; time++) sameRow(from, values);
    }
  }

  private static void sameRow(PreparedStatement from, Object[] values) throws SQLException {
    try (ResultSet rows = from.executeQuery()) {
      rows.next();
      for (int at = 0; at < values.length; at++) {
        Object found = values[at] instanceof byte[] ? rows.getBytes(at + 1) : rows.getObject(at + 1, values[at].getClass());
        Report.same(found, values[at]);
      }
      Report.same(rows.getString(values.length + 1), "{\"a\": [1, null, \"é\"]}");
    }
  }

  private static void arrays(Connection connection, Report.Endpoint to) throws Exception {
    Object[] numbers = {1L, null, -9007199254740993L};
    Object[] texts = {"a", null, "", "NULL", "{\"x\", \\y}"};
    try (PreparedStatement statement = connection.prepareStatement("SELECT ?::bigint[], ?::text[]")) {
      statement.setArray(1, connection.createArrayOf("bigint", numbers));
      statement.setArray(2, connection.createArrayOf("text", texts));
      for (int time = 0; time < 7; time++) {
        try (ResultSet rows = statement.executeQuery()) {
          rows.next();
          Report.same(rows.getArray(1).getArray(), numbers);
          Report.same(rows.getArray(2).getArray(), texts);
        }
      }
    }
  }

  private static void errors(Connection connection, Report.Endpoint to) throws Exception {
    execute(connection, "DELETE FROM " + Report.ITEMS);
    insertItem(connection, 1);
    PSQLException unique = failureOf(() -> insertItem(connection, 1));
    Report.same(unique.getSQLState(), "23505");
    Report.same(unique.getServerErrorMessage().getConstraint(), Report.ITEMS + "_pkey");
    PSQLException syntax = failureOf(() -> execute(connection, "SELECT 1 FROM WHERE"));
    Report.same(syntax.getSQLState(), "42601");
    Report.same(syntax.getServerErrorMessage().getPosition(), 15);
    Report.same(ask(connection, "SELECT 1"), 1);
  }

  // pgJDBC advises the pools of others, and ships this one.
  @SuppressWarnings("deprecation")
  private static void pool(Report.Endpoint to) throws Exception {
    PGPoolingDataSource source = new PGPoolingDataSource();
    source.setDataSourceName("clients at " + to.port());
    source.setServerNames(new String[] {to.host()});
    source.setPortNumbers(new int[] {to.port()});
    source.setDatabaseName(to.database());
    source.setUser(to.user());
    source.setPassword(to.password());
    source.setMaxConnections(4);
    ExecutorService threads = Executors.newFixedThreadPool(8);
    try {
      List<Future<Object>> answers = new ArrayList<>();
      for (int n = 0; n < 40; n++) {
        String sql = "SELECT " + n;
        answers.add(threads.submit(() -> {
          try (Connection connection = source.getConnection()) {
            return ask(connection, sql);
          }
        }));
      }
      for (int n = 0; n < 40; n++) Report.same(answers.get(n).get(), n);
    } finally {
      threads.shutdown();
      source.close();
    }
  }

  private static final class Numbers implements Report.Loop {
    private final Connection connection;
    private final PreparedStatement insert;

    Numbers(Report.Endpoint to) throws SQLException {
      connection = connect(to, to.password());
      insert = connection.prepareStatement("INSERT INTO " + Report.LOOP + " (n) VALUES (?)");
    }

    @Override
    public void insert(int n) throws SQLException {
      insert.setInt(1, n);
      insert.executeUpdate();
    }

    @Override
    public void transaction(int n) throws SQLException {
      connection.setAutoCommit(false);
      insert(n);
      Report.same(ask(connection, "SELECT max(n) FROM " + Report.LOOP), n);
      connection.commit();
      connection.setAutoCommit(true);
    }

    @Override
    public int[] total() throws SQLException {
      Object count = ask(connection, "SELECT count(*)::integer FROM " + Report.LOOP);
      return new int[] {(Integer) count, (Integer) ask(connection, "SELECT max(n) FROM " + Report.LOOP)};
    }

    @Override
    public void close() throws SQLException {
      connection.close();
    }
  }

  public static void main(String[] arguments) {
    Map<String, Report.Feature> features = new LinkedHashMap<>();
    features.put("connect", with(JdbcClient::login));
    features.put("tls", JdbcClient::tls);
    features.put("prepared", with(JdbcClient::prepared));
    features.put("transactions", with(JdbcClient::transactions));
    features.put("copy", with(JdbcClient::copy));
    features.put("notify", with(JdbcClient::notify));
    features.put("cancel", with(JdbcClient::cancel));
    features.put("types", with(JdbcClient::types));
    features.put("arrays", with(JdbcClient::arrays));
    features.put("errors", with(JdbcClient::errors));
    features.put("pool", JdbcClient::pool);
    Report.run(features, Numbers::new);
    System.exit(0);
  }
}
