/** One task: the ledger application notices every write that is lost, doubled, invented or torn, and every stall. */
import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import { readFileSync, rmSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { compareLedger } from '../../src/dev/ledger/compare.js';
import { startLedger, type Ledger, type LedgerOptions } from '../../src/dev/ledger/ledger.js';
import { prepareLedger, type LoadedHistory } from '../../src/dev/ledger/prepare.js';
import { nowMs } from '../../src/dev/ledger/book.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import { invariant } from '../../src/errors/invariant.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';

const clusters = useClusters({ server: { major: 18 } });

interface Prepared {
  readonly endpoint: Endpoint;
  readonly database: string;
  readonly history: LoadedHistory;
}

async function prepared(extraTables = 0): Promise<Prepared> {
  const database = await freshDatabase(clusters.server, 'ledger');
  const endpoint = clusters.server.endpoint(database);
  return { endpoint, database, history: await prepareLedger(endpoint, { rows: 2_000, extraTables }) };
}

async function started(options: LedgerOptions): Promise<Ledger> {
  const ledger = await startLedger(options);
  onTestFinished(() => ledger.stop());
  return ledger;
}

/** A ledger that has stopped after a few hundred writes. */
async function written(endpoint: Endpoint, writes = 300): Promise<Ledger> {
  const ledger = await started({ endpoint });
  await until('enough writes', () => ledger.acknowledged.length >= writes);
  await ledger.stop();
  return ledger;
}

/** A TCP relay that can hold its clients' answers back, or cut everybody off. */
async function relayTo(endpoint: Endpoint): Promise<{ endpoint: Endpoint; hold(held: boolean): void; cut(): void }> {
  const pairs: { near: Socket; far: Socket }[] = [];
  let holding = false;
  const server = createServer((near) => {
    const far = connect(endpoint.port, endpoint.host);
    pairs.push({ near, far });
    near.on('data', (data) => far.write(data)).on('error', () => undefined);
    far.on('data', (data) => near.write(data)).on('error', () => undefined);
    near.on('close', () => far.destroy());
    far.on('close', () => near.destroy());
    if (holding) far.pause();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    for (const { near } of pairs) near.destroy();
    server.close();
  });
  return {
    endpoint: { ...endpoint, port: (server.address() as AddressInfo).port },
    hold: (held) => {
      holding = held;
      for (const { far } of pairs)
        if (held) far.pause();
        else far.resume();
    },
    cut: () => {
      for (const { near } of pairs) near.destroy();
    },
  };
}

const CLEAN = { lost: [], doubled: [], unexpected: [], balanceOk: true, historyOk: true, unknownFound: 0 };

test('a run in which nothing happened is clean, with every kind of write in every protocol', async () => {
  const { endpoint, database, history } = await prepared(5);
  const ledger = await started({ endpoint, writtenTables: 5 });
  await until('enough writes', () => ledger.acknowledged.length >= 500 && ledger.reader.reads > 20);
  await ledger.stop();
  expect(await compareLedger(endpoint, ledger, history)).toEqual(CLEAN);
  expect(ledger.refused).toEqual([]);
  expect(ledger.unknown).toEqual([]);
  expect(ledger.reader).toMatchObject({ wentBack: 0, missed: [] });
  const tables = new Set(ledger.acknowledged.map(({ table }) => table));
  expect([...tables].sort()).toEqual(['documents', 'entries', 'extra_1', 'extra_2', 'extra_3', 'extra_4', 'extra_5']);
  const rows = await clusters.server.query(database, 'SELECT FROM accounts WHERE balance <> 1000000');
  expect(rows.length).toBeGreaterThan(0);
});

test('a row deleted by hand is reported lost', async () => {
  const { endpoint, database } = await prepared();
  const ledger = await written(endpoint);
  const [row] = await clusters.server.query<{ token: string }>(
    database,
    'DELETE FROM documents WHERE ctid = (SELECT max(ctid) FROM documents WHERE token IS NOT NULL) RETURNING token',
  );
  expect(await compareLedger(endpoint, ledger)).toEqual({ ...CLEAN, lost: [row?.token] });
});

test('a row that is there twice is reported doubled', async () => {
  const { endpoint, database } = await prepared();
  const ledger = await written(endpoint);
  const [row] = await clusters.server.query<{ token: string }>(
    database,
    `INSERT INTO entries (token, writer, debited, credited, amount)
       SELECT token, writer, debited, credited, amount FROM entries WHERE debited = 0 LIMIT 1 RETURNING token`,
  );
  expect(await compareLedger(endpoint, ledger)).toEqual({ ...CLEAN, doubled: [row?.token] });
});

test('a row nobody wrote, half a transfer and a changed loaded row are reported', async () => {
  const { endpoint, database, history } = await prepared();
  const ledger = await written(endpoint);
  const stranger = '11111111-2222-3333-4444-555555555555';
  await clusters.server.query(database, `INSERT INTO documents VALUES ('${stranger}', '')`);
  await clusters.server.query(database, 'UPDATE accounts SET balance = balance - 1 WHERE id = 7');
  await clusters.server.query(database, "UPDATE history SET note = 'other' WHERE id = 7");
  const expected = { ...CLEAN, unexpected: [stranger], balanceOk: false, historyOk: false };
  expect(await compareLedger(endpoint, ledger, history)).toEqual(expected);
});

test('a stall is measured as one gap of all writers, and found again by its window', async () => {
  const { endpoint } = await prepared();
  const relay = await relayTo(endpoint);
  const ledger = await started({ endpoint: relay.endpoint });
  await until('writes before the stall', () => ledger.acknowledged.length >= 100);
  relay.hold(true);
  const heldAtMs = nowMs();
  await until('400 ms have passed', () => nowMs() - heldAtMs >= 400);
  const whileHeld = ledger.longestGapBetween(heldAtMs, nowMs());
  relay.hold(false);
  const releasedAtMs = nowMs();
  const before = ledger.acknowledged.length;
  await until('writes after the stall', () => ledger.acknowledged.length >= before + 100);
  await ledger.stop();
  expect(whileHeld).toBeGreaterThanOrEqual(390);
  expect(ledger.longestGapMs).toBeGreaterThanOrEqual(390);
  expect(ledger.longestGapBetween(heldAtMs, releasedAtMs)).toBe(ledger.longestGapMs);
  expect(ledger.longestStallMs).toBeGreaterThanOrEqual(390);
  expect(ledger.acknowledgedBetween(heldAtMs + 100, releasedAtMs)).toBe(0);
  expect(ledger.acknowledgedBetween(0, Infinity)).toBe(ledger.acknowledged.length);
});

test('a connection lost while a commit was in flight is unknown, neither lost nor refused twice over', async () => {
  const { endpoint } = await prepared();
  const relay = await relayTo(endpoint);
  const ledger = await started({ endpoint: relay.endpoint });
  await until('writes before the cut', () => ledger.acknowledged.length >= 100);
  // Answers are held back first, so that some commits have reached the server and nobody was told.
  relay.hold(true);
  const heldAtMs = nowMs();
  await until('the server has answered', () => nowMs() - heldAtMs >= 100);
  relay.cut();
  relay.hold(false);
  const before = ledger.acknowledged.length;
  await until('writes after reconnecting', () => ledger.acknowledged.length >= before + 100);
  await ledger.stop();
  expect(ledger.unknown.length).toBeGreaterThan(0);
  const comparison = await compareLedger(endpoint, ledger);
  expect(comparison).toEqual({ ...CLEAN, unknownFound: comparison.unknownFound });
  expect(comparison.unknownFound).toBeGreaterThan(0);
});

test('a server that refuses writes is a list of refusals with their SQLSTATE, and no acknowledgement', async () => {
  const { endpoint, database } = await prepared();
  const ledger = await started({ endpoint });
  await until('writes', () => ledger.acknowledged.length >= 50);
  await clusters.server.query(database, 'ALTER TABLE entries ADD CONSTRAINT closed CHECK (false) NOT VALID');
  await until('refusals', () => ledger.refused.length >= 5);
  await clusters.server.query(database, 'ALTER TABLE entries DROP CONSTRAINT closed');
  await ledger.stop();
  invariant(ledger.refused[0], 'there is a refusal');
  expect(ledger.refused[0].sqlstate).toBe('23514');
  expect(await compareLedger(endpoint, ledger)).toEqual(CLEAN);
});

test('clients that get no answer at all do not hold up stop() for ever', { timeout: 30_000 }, async () => {
  const { endpoint } = await prepared();
  const relay = await relayTo(endpoint);
  const ledger = await started({ endpoint: relay.endpoint, thinkMs: 0 });
  await until('writes', () => ledger.acknowledged.length >= 50);
  relay.hold(true);
  const heldAtMs = nowMs();
  await until('all of them wait', () => nowMs() - heldAtMs >= 100);
  await ledger.stop();
  expect(ledger.refused.length + ledger.unknown.length).toBeGreaterThanOrEqual(9);
});

test('every acknowledged token is in the file as well', async () => {
  const { endpoint } = await prepared();
  const folder = mkdtempSync(join(tmpdir(), 'cutover-ledger-'));
  onTestFinished(() => {
    rmSync(folder, { recursive: true });
  });
  const file = join(folder, 'acknowledged.txt');
  const ledger = await started({ endpoint, file });
  await until('writes', () => ledger.acknowledged.length >= 50);
  await ledger.stop();
  expect(readFileSync(file, 'utf8').trim().split('\n')).toEqual(ledger.acknowledged.map(({ token }) => token));
});

test('a reader that is answered by a side which lags notices that time ran backwards', async () => {
  const { endpoint, database } = await prepared();
  const ledger = await started({ endpoint });
  await until('writes and reads', () => ledger.acknowledged.length >= 100 && ledger.reader.reads >= 10);
  await clusters.server.query(
    database,
    `BEGIN; ALTER TABLE entries RENAME TO entries_before;
     CREATE TABLE entries (LIKE entries_before INCLUDING ALL); COMMIT`,
  );
  await until('the reader has noticed', () => ledger.reader.wentBack > 0);
});

test('a write that was acknowledged and cannot be read is noticed by the reader and by the comparison', async () => {
  const { endpoint, database } = await prepared();
  await clusters.server.query(
    database,
    `CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN DELETE FROM documents WHERE token = NEW.token; RETURN NULL; END $$;
     CREATE TRIGGER swallow AFTER INSERT ON documents FOR EACH ROW EXECUTE FUNCTION swallow()`,
  );
  const ledger = await started({ endpoint });
  await until('the reader has missed one', () => ledger.reader.missed.length > 0);
  await ledger.stop();
  const { lost } = await compareLedger(endpoint, ledger);
  const swallowed = ledger.acknowledged.filter(({ table }) => table === 'documents').map(({ token }) => token);
  expect(lost).toEqual(swallowed);
  expect(swallowed).toEqual(expect.arrayContaining([...ledger.reader.missed]));
});
