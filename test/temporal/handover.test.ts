/**
 * One task: a worker of the previous version hands a migration in flight to one of this version, which carries it to its end.
 *
 * The previous version is its workflow bundle, kept in previous/: what a worker of today cannot go on with is what that one decided. Its
 * activities are those of today under the names that it knows.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { expect, it, onTestFinished } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import { createActivities } from '../../activities/index.js';
import { byFiles } from '../../src/configured.js';
import { connect } from '../../src/postgres/connection.js';
import { SILENT } from '../../src/proxy/logger.js';
import { serveWorker, type ServedWorker } from '../../src/serve-worker.js';
import type { WorkerVersion } from '../../src/temporal/worker.js';
import { Moving } from '../moves/moving.js';
import { until } from '../support/wait.js';
import { allHistories, type History } from './histories.js';

const PREVIOUS: WorkerVersion = {
  workflowBundle: {
    code: gunzipSync(readFileSync(new URL('previous/workflow-bundle.js.gz', import.meta.url))).toString('utf8'),
  },
  activities: (context) => {
    const section = new CriticalSection(context);
    return {
      ...createActivities(context),
      // Its pause had three local activities.
      closeSource: section.closeSource.bind(section),
      proveDestination: section.proveDestination.bind(section),
      openDestination: section.openDestination.bind(section),
    };
  },
};
/** Only a ceiling: every wait is for a condition. */
const TIMEOUT_MS = 120_000;
const LEFT = `SELECT slot_name AS name FROM pg_replication_slots UNION ALL SELECT subname FROM pg_subscription
  UNION ALL SELECT rolname FROM pg_roles WHERE rolname ~ '^cutover_' UNION ALL SELECT id FROM cutover.migration WHERE active`;

/** A migration whose worker is of the previous version until `handOver`. */
async function migration(): Promise<{ readonly moving: Moving; readonly handOver: () => Promise<void> }> {
  const moving = await Moving.start({
    source: 17,
    destination: 18,
    general: 'cutover_save_config = true',
    worker: false,
  });
  onTestFinished(() => moving.stop());
  const start = (version?: WorkerVersion): Promise<ServedWorker> => {
    const { files, temporal, address } = moving.system;
    return serveWorker({
      configured: byFiles({ files, temporalAddress: temporal.address, logger: SILENT }),
      port: address.port,
      ...(version && { version }),
    });
  };
  let worker = await start(PREVIOUS);
  onTestFinished(() => worker.stop());
  return {
    moving,
    handOver: async () => {
      await worker.stop();
      worker = await start();
    },
  };
}

/** Finalizes, and sees that both sides are clean and that workflows of both versions were run, none of which failed. */
async function expectCarriedToItsEnd(moving: Moving, task: string): Promise<void> {
  const { system, temporal } = moving;
  await moving.writes();
  await moving.expectNothingLost();
  await system.admin(`STOP_TASK ${task}`);
  await system.task('the move has ended', (t) => t.id === task && t.status === 'finished');
  for (const cluster of [system.source, system.destination])
    await until('nothing is left', async () => (await cluster.query('app', LEFT)).length === 0);
  expect(await moving.servingMajor()).toBe(18);
  const histories = await allHistories(temporal);
  const failed = histories.filter(({ history }) => history.events?.some((e) => e.workflowTaskFailedEventAttributes));
  expect(failed.map(({ workflowId }) => workflowId)).toEqual([]);
  const handedOver = histories.filter(({ history }) => versionsOf(history).size === 2);
  expect(handedOver.map(({ workflowType }) => workflowType)).toEqual(expect.arrayContaining(['reshard', 'replicate']));
}

/** The build ids of the workers that ran a workflow: the SDK takes a hash of the bundle. */
function versionsOf({ events }: History): ReadonlySet<string> {
  const ids = (events ?? []).map((e) => e.workflowTaskCompletedEventAttributes?.workerVersion?.buildId);
  return new Set(ids.filter((id) => typeof id === 'string'));
}

it(
  'handed over while a cutover waits for its moment: the new version moves the traffic',
  { timeout: TIMEOUT_MS },
  async () => {
    const { moving, handOver } = await migration();
    await moving.load();
    const task = await moving.copyData();
    const old = await connect(moving.system.source.endpoint('app'));
    onTestFinished(() => old.end());
    await old.query('BEGIN');
    await old.query('SELECT txid_current()');
    await until('the transaction is old', async () => {
      const { rows } = await old.query<{ old: boolean }>(`SELECT clock_timestamp() - now() > interval '1 s' AS old`);
      return rows[0]?.old;
    });
    await moving.system.admin(`CUTOVER ${task}`);
    await moving.waitsFor(/has run a transaction/);
    await handOver();
    await old.query('COMMIT');
    await moving.system.task('the move soaks', (t) => t.id === task && t.inner_status === 'soaking');
    await expectCarriedToItsEnd(moving, task);
  },
);

it(
  'handed over in the soak: the new version moves it back, and again, and ends it',
  { timeout: TIMEOUT_MS },
  async () => {
    const { moving, handOver } = await migration();
    await moving.load();
    const task = await moving.reshard();
    await moving.system.task('the move soaks', (t) => t.id === task && t.inner_status === 'soaking');
    await handOver();
    await moving.cutoverByOperator(await moving.streamsTask());
    await moving.cutoverByOperator(task);
    await expectCarriedToItsEnd(moving, task);
  },
);
