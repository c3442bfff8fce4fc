/** One task: several proxies switch as one, and one that is gone, strange or different is named before anything happens. */
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { MoveResult } from '../../src/cutover/contract.js';
import { compareLedger } from '../../src/dev/ledger/compare.js';
import { startLedger, type Ledger } from '../../src/dev/ledger/ledger.js';
import { prepareLedger, PUBLICATION, type LoadedHistory } from '../../src/dev/ledger/prepare.js';
import { withConnection } from '../../src/postgres/connection.js';
import { startAppendLoad, type AppendLoad } from '../history/append-load.js';
import { check } from '../history/checker.js';
import { describeFindings } from '../history/findings.js';
import { countsOf } from '../history/history.js';
import { LISTS_SCHEMA, readLists } from '../history/lists.js';
import { FleetSystem } from '../support/fleet.js';
import { until } from '../support/wait.js';

interface NodeLine {
  readonly node: string;
  readonly state: string;
  readonly database: string | null;
  readonly epoch: string | null;
  readonly serving: string | null;
  readonly files: string | null;
  readonly lag_ms: string | null;
  readonly fingerprint: string | null;
  readonly problem: string | null;
}

interface DecisionLine {
  readonly epoch: string;
  readonly state: string;
  readonly reason: string | null;
}

let fleet: FleetSystem;
let history: LoadedHistory;
let ledger: Ledger;
/** Clients of all nodes that read what others wrote: one that came back to the wrong side would show them the past. */
let lists: AppendLoad;

beforeAll(async () => {
  fleet = await FleetSystem.start({
    source: 17,
    destination: 18,
    nodes: 3,
    general: 'cutover_lease = 2000\ncutover_save_config = true',
  });
  history = await prepareLedger(fleet.source.endpoint('app'), { rows: 1_000, extraTables: 3 });
  await fleet.source.query('app', LISTS_SCHEMA);
  ledger = await startLedger({ endpoint: fleet.nodes.map((n) => n.endpoint), writtenTables: 3, thinkMs: 80 });
  lists = await startAppendLoad({ endpoints: fleet.nodes.map((n) => n.endpoint), seed: 7, clients: 6 });
});

afterAll(async () => {
  await lists.stop();
  await ledger.stop();
  await fleet.stop();
});

async function writes(count = 100): Promise<void> {
  const before = ledger.acknowledged.length;
  await untilOrTell('writes are acknowledged', () => ledger.acknowledged.length >= before + count, 60_000);
}

/** As `until`; where it ends in vain, it tells what tasks, nodes and sessions do. */
async function untilOrTell<T>(
  what: string,
  look: () => T | Promise<T>,
  deadlineMs: number,
): ReturnType<typeof until<T>> {
  return until(what, look, deadlineMs).catch(async (error: unknown) => {
    throw new Error(`${String(error)}; ${await standing()}`);
  });
}

async function standing(): Promise<string> {
  const sessions = `SELECT pid, usename, application_name AS name, state, wait_event_type AS waits, pg_blocking_pids(pid) AS behind,
    left(query, 80) AS query FROM pg_stat_activity WHERE datname = 'app' AND state <> 'idle' AND pid <> pg_backend_pid()`;
  const fence = 'SELECT state, epoch, cutover.fence_is_up() AS up FROM cutover.fence';
  const sides = [fleet.source, fleet.destination];
  const asked = sides.flatMap((side) => [side.query('app', fence), side.query('app', sessions)]);
  const tasks = await fleet.node(0).admin('SHOW TASKS');
  return JSON.stringify([tasks, await nodes(), await lastDecision(), ...(await Promise.all(asked))]);
}

async function nodes(at = 0): Promise<readonly NodeLine[]> {
  return (await fleet.node(at).admin<NodeLine>('SHOW NODES')).filter(
    (n) => n.database === null || n.database === 'prod',
  );
}

let moves = 0;
async function move(rollback: boolean): Promise<MoveResult> {
  const args = [{ source: 'prod', destination: 'prod_new', rollback }];
  const workflowId = `fleet-${(++moves).toString()}`;
  return (await fleet.temporal.workflow.execute('cutover', { workflowId, taskQueue: 'cutover', args })) as MoveResult;
}

function sentenceOf(error: unknown): string {
  const cause = error instanceof Error ? (error.cause ?? error) : error;
  return cause instanceof Error ? cause.message : String(cause);
}

async function lastDecision(): Promise<DecisionLine | undefined> {
  const sql = 'SELECT epoch, state, reason FROM cutover.decision ORDER BY epoch DESC LIMIT 1';
  const rows = (
    await Promise.all([fleet.source, fleet.destination].map((side) => side.query<DecisionLine>('app', sql)))
  ).flat();
  return rows.sort((a, b) => Number(b.epoch) - Number(a.epoch))[0];
}

async function sideOfSource(): Promise<string> {
  const [row] = await fleet.source.query<{ side: string }>(
    'app',
    `SELECT system_identifier || '/' || (SELECT oid FROM pg_database WHERE datname = current_database()) AS side
     FROM pg_control_system()`,
  );
  return row?.side ?? '';
}

/** Whether the destination serves, so that the next move is a rollback. */
async function movedAway(): Promise<boolean> {
  const [first] = await nodes();
  expect(first).toMatchObject({ node: 'a', state: 'serving', serving: expect.stringMatching(/^\d+\/\d+$/) as string });
  return first?.serving !== (await sideOfSource());
}

/** Every node serves the same side of the same epoch. */
async function expectAsOne(): Promise<void> {
  const lines = await nodes();
  expect(lines.map((n) => n.node)).toEqual(['a', 'b', 'c']);
  expect(lines.every((n) => n.state === 'serving' && n.problem === null)).toBe(true);
  for (const column of ['epoch', 'serving', 'fingerprint'] as const)
    expect(new Set(lines.map((n) => n[column])).size, column).toBe(1);
  for (const { lag_ms } of lines)
    expect(lag_ms !== null && Number(lag_ms) >= 0, `lag_ms ${lag_ms ?? 'null'}`).toBe(true);
}

describe('three proxies', () => {
  test('are listed by any of them, before any migration too', async () => {
    await expectAsOne();
    expect((await nodes(2)).map((n) => n.node)).toEqual(['a', 'b', 'c']);
  });

  test('switch as one, back, and there again, whichever of them was asked', { timeout: 180_000 }, async () => {
    const [started] = await fleet.node(1).admin<{ task_id: string }>(`COPY_DATA prod prod_new ${PUBLICATION}`);
    await fleet.task('the copy streams', (t) => t.id === started?.task_id && t.inner_status === 'replicating');
    await writes();
    await fleet.node(2).admin(`CUTOVER ${started?.task_id ?? ''}`);
    await fleet.task('the traffic has moved', (t) => t.type === 'replication prod -> prod_new (reverse)');
    await expectAsOne();
    await writes();
    expect(await move(true)).toMatchObject({ outcome: 'moved' });
    await expectAsOne();
    await writes();
    expect(await move(false)).toMatchObject({ outcome: 'moved' });
    await expectAsOne();
    await writes();
    expect(ledger.refused).toEqual([]);
  });

  test('save the configuration each in its own files', async () => {
    for (const node of fleet.nodes)
      await until(`node ${node.name} has saved`, () =>
        new RegExp(`name = "prod"[^[]*port = ${fleet.destination.port.toString()}`).test(
          readFileSync(node.files.config, 'utf8'),
        ),
      );
  });

  test.each([
    { step: 'pauseTraffic', state: 'aborted' },
    { step: 'awaitParity', state: 'committed' },
    { step: 'swapConfiguration', state: 'committed' },
  ] as const)(
    'one that freezes at $step: the epoch is $state, the others go on, and it comes back to the side that was decided',
    { timeout: 120_000 },
    async ({ step, state }) => {
      const frozen = fleet.node(2);
      const before = (await lastDecision())?.epoch;
      const back = !(await movedAway());
      for (const node of fleet.nodes) node.faultAt(step, 'SIGSTOP', frozen.pid);
      const moving = move(!back).then(
        (result) => result.outcome,
        (error: unknown) => sentenceOf(error),
      );
      const decided = await untilOrTell(
        'the epoch is decided',
        async () => {
          const decision = await lastDecision();
          return decision && decision.epoch !== before && decision.state !== 'preparing' && decision.state !== 'sealed'
            ? decision
            : null;
        },
        30_000,
      );
      for (const node of fleet.nodes) node.forgetFault();
      // The node that froze may be the one that ran the steps: then the leases of the others decided, for an abort.
      if (decided.state !== state) expect(decided.reason).toContain('lease');
      // Clients of the other nodes are let go while it is still frozen.
      await writes(50);
      frozen.signal('SIGCONT');
      if ((await moving) !== 'moved') expect(await move(!back)).toMatchObject({ outcome: 'moved' });
      await until('all stand at one epoch', async () => new Set((await nodes()).map((n) => n.epoch)).size === 1);
      await expectAsOne();
      await writes();
    },
  );

  test.each(['SIGSTOP', 'SIGKILL'] as const)(
    'one that is silent (%s) for longer than two renewals while parity is awaited: the epoch is aborted, and names it',
    { timeout: 120_000 },
    async (signal) => {
      const silent = fleet.node(2);
      const before = Number((await lastDecision())?.epoch ?? 0);
      const back = !(await movedAway());
      // The marker of the seal cannot be applied, so that the renewals decide.
      const waiting = back ? fleet.destination : fleet.source;
      await withConnection(waiting.endpoint('app'), async (holder) => {
        await holder.query('BEGIN; LOCK TABLE cutover.marker IN EXCLUSIVE MODE');
        for (const node of fleet.nodes) node.faultAt('awaitParity', signal, silent.pid);
        const moving = move(!back).then(
          (result) => result.outcome,
          (error: unknown) => sentenceOf(error),
        );
        const decided = await until('the epoch is decided', async () => {
          const decision = await lastDecision();
          return decision && Number(decision.epoch) > before && decision.state === 'aborted' ? decision : null;
        });
        for (const node of fleet.nodes) node.forgetFault();
        // It may be the one that ran the steps: then the leases of the others decide.
        expect(decided.reason).toMatch(/node c .*silent for \d+ ms|the lease of node [ab] ran out/);
        await writes(50);
        await holder.query('ROLLBACK');
        if (signal === 'SIGSTOP') silent.signal('SIGCONT');
        else await silent.start();
        if ((await moving) !== 'moved') expect(await move(!back)).toMatchObject({ outcome: 'moved' });
      });
      await until('all stand at one epoch', async () => new Set((await nodes()).map((n) => n.epoch)).size === 1);
      await expectAsOne();
      await writes();
    },
  );

  test(
    'one that is dead fails the next cutover by its name, and nothing has changed',
    { timeout: 120_000 },
    async () => {
      await fleet.node(1).kill();
      const refused = await move(await movedAway()).catch((error: unknown) => error);
      expect(sentenceOf(refused)).toContain('node b');
      expect((await nodes()).find((n) => n.node === 'b')).toMatchObject({ state: 'unreachable', lag_ms: null });
      await fleet.node(1).start();
      expect(await move(false)).toMatchObject({ outcome: 'moved' });
      await expectAsOne();
    },
  );

  test('one that is configured differently fails it by its name', { timeout: 60_000 }, async () => {
    const { config } = fleet.node(1).files;
    const text = readFileSync(config, 'utf8');
    writeFileSync(config, text.replace('[general]', '[general]\nidle_timeout = 12345'));
    await fleet.node(1).admin('RELOAD');
    const refused = await move(await movedAway()).catch((error: unknown) => error);
    expect(sentenceOf(refused)).toMatch(/configurations differ.*\bb has/);
    writeFileSync(config, text);
    await fleet.node(1).admin('RELOAD');
    await writes();
  });

  test('a row that leads to a stranger fails it by its name, whatever answers there', { timeout: 60_000 }, async () => {
    const files = fleet.nodes.map(({ files: { config } }) => config);
    const texts = files.map((file) => readFileSync(file, 'utf8'));
    const row = (name: string, port: number): string =>
      `name = "${name}"\nhost = "127.0.0.1"\nport = ${port.toString()}`;
    const [b, c] = [fleet.node(1).endpoint.port, fleet.node(2).endpoint.port];
    // The other proxy answers, then a PostgreSQL. Two rows are wrong: the node that does the work knows itself.
    for (const [instead, problem] of [
      [{ b: c, c: b }, /node ([bc]) is expected at .*, where (?!\1)[bc] answers/],
      [{ b: fleet.source.port, c: fleet.destination.port }, /node [bc] does not do as told/],
    ] as const) {
      const rows = (text: string): string =>
        text.replace(row('b', b), row('b', instead.b)).replace(row('c', c), row('c', instead.c));
      for (const [index, file] of files.entries()) writeFileSync(file, rows(texts[index] ?? ''));
      for (const node of fleet.nodes) await node.admin('RELOAD');
      const refused = await move(await movedAway()).catch((error: unknown) => error);
      expect(sentenceOf(refused)).toMatch(problem);
      expect((await nodes()).find((n) => n.node === 'b')?.problem).toMatch(problem);
      await writes(20);
    }
    for (const [index, file] of files.entries()) writeFileSync(file, texts[index] ?? '');
    for (const node of fleet.nodes) await node.admin('RELOAD');
    await expectAsOne();
  });

  test('a row of its own that leads elsewhere is seen by the node itself too', { timeout: 60_000 }, async () => {
    const b = fleet.node(1);
    const text = readFileSync(b.files.config, 'utf8');
    // In the files of b alone: the others know better.
    const wrong = `name = "b"\nhost = "127.0.0.1"\nport = ${fleet.source.port.toString()}`;
    writeFileSync(b.files.config, text.replace(/name = "b"\nhost = "127.0.0.1"\nport = \d+/, wrong));
    await b.admin('RELOAD');
    expect((await nodes(1)).find((n) => n.node === 'b')?.problem).toMatch(/node b does not do as told/);
    writeFileSync(b.files.config, text);
    await b.admin('RELOAD');
    await expectAsOne();
  });

  test(
    'RELOAD refuses files without the row of the node, and what was in force stays',
    { timeout: 60_000 },
    async () => {
      const b = fleet.node(1);
      const text = readFileSync(b.files.config, 'utf8');
      writeFileSync(b.files.config, text.replace(/\n\[\[nodes\]\]\nname = "b"\nhost = [^\n]*\nport = \d+\n/, '\n'));
      await expect(b.admin('RELOAD')).rejects.toThrow(
        'which of [[nodes]] is this process? there is no node "b" (known: a, c)',
      );
      expect((await nodes(1)).map((n) => n.node)).toEqual(['a', 'b', 'c']);
      writeFileSync(b.files.config, text);
      await b.admin('RELOAD');
      await writes(20);
      await expectAsOne();
    },
  );

  test('showed no client of any node the past', { timeout: 60_000 }, async () => {
    const read = await lists.stop();
    expect(countsOf(read)).toMatchObject({ ok: expect.toSatisfy((ok: number) => ok > 500) as number });
    expect(describeFindings(check(read, await readLists(fleet.node(0).endpoint)))).toBe('');
  });

  test('lost and doubled nothing', { timeout: 60_000 }, async () => {
    await ledger.stop();
    expect(await compareLedger(fleet.node(0).endpoint, ledger, history)).toMatchObject({
      lost: [],
      doubled: [],
      unexpected: [],
      balanceOk: true,
      historyOk: true,
    });
    // Only clients of the nodes that were killed saw an error: of three writers all but the first.
    const clients = new Set([...ledger.unknown, ...ledger.refused].map(({ client }) => client));
    for (const spared of ['ledger writer 1', 'ledger writer 4', 'ledger writer 7'])
      expect(clients).not.toContain(spared);
    expect(clients).toContain('ledger writer 2');
  });
});
