/** One task: abort, STOP_TASK, Cancel and Terminate at every step of the pause: one decision, clients unharmed, the next move works. */
import type { WorkflowHandle } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { MoveResult } from '../../src/cutover/contract.js';
import { STEPS, type Step } from '../../src/cutover/epoch.js';
import { Moving, type CutoverLine } from '../moves/moving.js';
import { acceptingSides } from '../support/faults.js';
import { until } from '../support/wait.js';
import { THOROUGH } from '../support/thorough.js';

let moving: Moving;
let task = '';
let heading: 'forward' | 'reverse' = 'forward';
let moves = 0;

const serving = (): 'source' | 'destination' => (heading === 'forward' ? 'source' : 'destination');
const beforeCommit = (step: Step): boolean => STEPS.indexOf(step) <= STEPS.indexOf('commitCutover');

beforeAll(async () => {
  moving = await Moving.start({ source: 17, destination: 18, general: 'cutover_lease = 1000' });
  await moving.load();
  task = await moving.copyData();
});

afterAll(async () => {
  await moving.stop();
});

/** Holds the next beginning of `step` open. */
function holdStep(step: Step): { readonly reached: Promise<void>; letGo(): void } {
  let letGo: () => void = () => undefined;
  const held = new Promise<void>((resolve) => (letGo = resolve));
  const reached = new Promise<void>((resolve) => {
    moving.system.onStep = (_, current) => {
      if (current !== step) return;
      moving.system.onStep = () => undefined;
      resolve();
      return held;
    };
  });
  return { reached, letGo };
}

async function begin(): Promise<WorkflowHandle> {
  const workflowId = `stopped-${(++moves).toString()}`;
  const args = [{ source: 'prod', destination: 'prod_new', rollback: heading === 'reverse' }];
  return moving.temporal.workflow.start('cutover', { workflowId, taskQueue: 'cutover', args });
}

/** The newest epoch, once it is decided and the clients run again. */
async function decided(): Promise<CutoverLine> {
  const line = await until('the epoch is decided', async () => {
    const [newest] = await moving.cutovers();
    return newest && newest.outcome !== 'running' && newest;
  });
  await moving.writes(20);
  if (line.outcome === 'committed') heading = heading === 'forward' ? 'reverse' : 'forward';
  expect(await acceptingSides(moving.system, 'accounts')).toEqual([serving()]);
  return line;
}

const outcomeOf = (handle: WorkflowHandle): Promise<MoveResult | string> =>
  handle.result().then(
    (result) => result as MoveResult,
    (error: unknown) => (error instanceof Error ? ((error.cause as Error | undefined)?.message ?? error.message) : ''),
  );

/** Nothing reaches into the pause by these, whichever its step. */
const SOME_STEPS = THOROUGH ? STEPS : STEPS.filter((_, index) => index % 2 === 0);

describe('the pause is under way', () => {
  test.each(STEPS)('abort at %s', async (step) => {
    const hold = holdStep(step);
    const handle = await begin();
    await hold.reached;
    const answer = await handle.executeUpdate<string, []>('abort');
    hold.letGo();
    const outcome = await outcomeOf(handle);
    const line = await decided();
    if (beforeCommit(step)) {
      expect(answer).toBe('aborted by an operator');
      expect(outcome).toContain('aborted by an operator');
      expect(line).toMatchObject({ outcome: 'aborted', reason: 'aborted by an operator' });
    } else {
      expect(answer).toBe('too late: the traffic has moved');
      expect(outcome).toMatchObject({ outcome: 'moved' });
      expect(line).toMatchObject({ outcome: 'committed', reason: null });
    }
  });

  test.each(STEPS)('STOP_TASK at %s', async (step) => {
    const hold = holdStep(step);
    const handle = await begin();
    await hold.reached;
    const running = await moving.system.task(
      'the cutover is a task',
      (t) => t.type.startsWith('cutover ') && t.status === 'running' && t.id !== null,
    );
    await moving.system.admin(`STOP_TASK ${running.id ?? ''}`);
    hold.letGo();
    const outcome = await outcomeOf(handle);
    const line = await decided();
    const shown = await moving.system.task('the task has ended', (t) => t.id === running.id && t.status !== 'running');
    if (beforeCommit(step)) {
      expect(outcome).toContain('stopped by an operator');
      expect(line).toMatchObject({ outcome: 'aborted', reason: 'stopped by an operator' });
      expect(shown.status).toContain('stopped by an operator');
    } else {
      expect(outcome).toMatchObject({ outcome: 'moved' });
      expect(line).toMatchObject({ outcome: 'committed', reason: null });
      expect(shown.status).toBe('finished');
    }
  });

  test.each(SOME_STEPS)('Cancel at %s', async (step) => {
    const hold = holdStep(step);
    const handle = await begin();
    await hold.reached;
    await handle.cancel();
    hold.letGo();
    // Temporal cannot reach into the pause: it ends as it would have, and everybody is told.
    expect(await outcomeOf(handle)).toMatchObject({ outcome: 'moved' });
    expect(await decided()).toMatchObject({ outcome: 'committed', reason: null });
  });

  test.each(SOME_STEPS)('Terminate at %s', async (step) => {
    const hold = holdStep(step);
    const handle = await begin();
    await hold.reached;
    await handle.terminate('the test');
    hold.letGo();
    expect(await outcomeOf(handle)).toContain('the test');
    expect(await decided()).toMatchObject({ outcome: 'committed', reason: null });
  });

  test.each(['sealSource', 'commitCutover', 'swapConfiguration'] as const)(
    'Terminate of the pause itself at %s',
    async (step) => {
      const hold = holdStep(step);
      const handle = await begin();
      await hold.reached;
      const [newest] = await moving.cutovers();
      await moving.temporal.workflow
        .getHandle(`${handle.workflowId}/pause-${newest?.epoch ?? ''}`)
        .terminate('the test');
      const again = until('an attempt is decided', async () => (await moving.cutovers())[0]?.outcome !== 'running');
      await again;
      hold.letGo();
      expect(await outcomeOf(handle)).toMatchObject({ outcome: 'moved', attempts: beforeCommit(step) ? 2 : 1 });
      expect(await decided()).toMatchObject({ outcome: 'committed', reason: null });
    },
  );

  test(
    'after all of them the streams know which way they run, and an operator moves and finalizes by their numbers',
    { timeout: 120_000 },
    async () => {
      if (heading === 'reverse') await moving.cutoverByOperator(await moving.streamsTask('reverse'));
      heading = 'forward';
      await moving.cutoverByOperator(task);
      await moving.streamsTask('reverse');
      await moving.expectNothingLost();
      await moving.system.served?.node.save('prod');
      await moving.system.admin(`STOP_TASK ${task}`);
      await moving.system.task('the move is finished', (t) => t.id === task && t.status === 'finished');
      for (const cluster of [moving.system.source, moving.system.destination]) {
        expect(await cluster.query('app', 'SELECT slot_name FROM pg_replication_slots')).toEqual([]);
        expect(await cluster.query('app', 'SELECT subname FROM pg_subscription')).toEqual([]);
      }
    },
  );
});
