/** One task: look again and again inside a pause, as often as a round trip to the server allows, until it is done or time is up. */
import { setTimeout as delay } from 'node:timers/promises';

const POLL_MS = 0.5;

export interface Look {
  readonly done: boolean;
  /** what is missing, as words */
  readonly missing: string;
}

/** The first look that is done, or the last one before `deadlineMs` was over. */
export async function poll(deadlineMs: number, look: () => Promise<Look>): Promise<Look> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const answer = await look();
    if (answer.done || performance.now() >= end) return answer;
    await delay(POLL_MS);
  }
}
