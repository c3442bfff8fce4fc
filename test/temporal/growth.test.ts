/** One task: hold the long phases to short histories: a watch of days continues as new, and nothing notices. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { TaskEvent } from '../../src/cutover/contract.js';
import { WATCHES_PER_RUN } from '../../src/cutover/policy.js';
import type { TaskState } from '../../src/cutover/task.js';
import { useTemporal } from '../support/temporal.js';
import { until } from '../support/wait.js';
import { ScriptedEngine, REQUEST } from './scripted-engine.js';

const temporal = useTemporal();
let engine: ScriptedEngine;

beforeAll(async () => {
  let watches = 0;
  engine = await ScriptedEngine.start(temporal().address, 'growth', {
    // The first run watches without a rest, as if days had passed; then the watches last.
    watchStreams: async () => {
      watches += 1;
      if (watches === WATCHES_PER_RUN) engine.hold('watchStreams');
      return Promise.resolve(null);
    },
  });
});

afterAll(async () => {
  await engine.stop();
});

test('streams watched for days continue as new, are not taken down by that, and still hear and tell their parent', async () => {
  const move = await engine.start('reshard', 'long', { ...REQUEST, cutover: 'approved' });
  const streams = engine.client.workflow.getHandle('long/streams');
  const continued = await until(
    'the streams have continued as new and watch on',
    async () => {
      const { runId, raw } = await streams.describe();
      const first = raw.workflowExecutionInfo?.firstRunId;
      return runId !== first && engine.calls.filter((c) => c === 'watchStreams').length > WATCHES_PER_RUN && runId;
    },
    45_000,
  );
  expect(engine.calls).not.toContain('removeMigration');
  expect(engine.calls).not.toContain('finalizeMigration');
  const description = await streams.describe();
  expect(description.status.name).toBe('RUNNING');
  expect(description.historyLength).toBeLessThan(4 * WATCHES_PER_RUN);
  expect(description.parentExecution?.workflowId).toBe('long');
  const events = await streams.query<readonly TaskEvent[]>('events');
  expect(events.map((e) => e.sequence)).toEqual(events.map((_, i) => i));
  expect(events.filter((e) => e.type === 'TaskStarted')).toHaveLength(1);

  // Indexes of a large table take longer than an hour: noticed dead by their heartbeat, and else left to it.
  const { events: history } = await move.fetchHistory();
  const scheduled = (history ?? []).map((e) => e.activityTaskScheduledEventAttributes);
  const indexes = scheduled.find((a) => a?.activityType?.name === 'finaliseSchema');
  expect(Number(indexes?.startToCloseTimeout?.seconds)).toBeGreaterThan(7 * 24 * 3_600);
  expect(Number(indexes?.heartbeatTimeout?.seconds)).toBeLessThanOrEqual(15);

  // From outside: a cutover tells the owner of the streams, and that one tells its parent, which started a run that is over.
  await (await engine.start('cutover', 'by-hand', REQUEST)).result();
  await until('the parent knows that the traffic has moved', async () => {
    return (await move.query<TaskState>('state')).reversed;
  });
  expect((await streams.describe()).runId).toBe(continued);

  // And the parent reaches the run that goes on.
  await move.executeUpdate('finalize', { args: [] });
  expect(await move.result()).toContain('finalized');
  expect(await streams.result()).toBe('finalize');
  expect(engine.calls.filter((c) => c === 'finalizeMigration')).toHaveLength(1);
});
