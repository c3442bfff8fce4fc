/** One task: wait for the streams of a move `prod -> prod_new`, and send the traffic where it is not. */
import { invariant } from '../../src/errors/invariant.js';
import type { System, TaskLine } from '../support/served.js';
import { until } from '../support/wait.js';

export const SWITCH_DEADLINE_MS = 120_000;

/** @param heading nothing while the source serves, ` (reverse)` while the destination does */
export async function streaming(served: System, heading: string): Promise<void> {
  await until(
    `streams run${heading}`,
    async () => {
      const tasks = await served.admin<TaskLine>('SHOW TASKS');
      const failed = tasks.find(({ status }) => status === 'failed');
      invariant(failed === undefined, JSON.stringify(failed));
      return tasks.some(
        ({ type, status }) => type === `replication prod -> prod_new${heading}` && status === 'running',
      );
    },
    SWITCH_DEADLINE_MS,
  );
}

/** The task of the streams that run, wherever the traffic is. */
export function runningStreams(served: System): Promise<TaskLine> {
  return until('streams run', async () =>
    (await served.admin<TaskLine>('SHOW TASKS')).find(
      ({ type, status }) => type.startsWith('replication ') && status === 'running',
    ),
  );
}

/** `CUTOVER` of the streams that run; resolves when those of the other direction do. */
export async function turned(served: System, heading: string): Promise<void> {
  await served.admin(`CUTOVER ${(await runningStreams(served)).id ?? ''}`);
  await streaming(served, heading);
}
