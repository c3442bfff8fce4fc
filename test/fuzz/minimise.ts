/** One task: make a stream that breaks something as short as it can be while it still does. */
import type { Stream } from './stream.js';

const ROUNDS_MAX = 5;

/** @param breaks whether a shorter one still does; asked often */
export async function minimised(stream: Stream, breaks: (shorter: Stream) => Promise<boolean>): Promise<Stream> {
  let best = stream;
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    const before = best.steps.length + best.lies.length;
    for (const part of ['steps', 'lies'] as const) {
      for (let at = best[part].length - 1; at >= 0; at -= 1) {
        const shorter = { ...best, [part]: best[part].toSpliced(at, 1) };
        if (await breaks(shorter)) best = shorter;
      }
    }
    if (best.steps.length + best.lies.length === before) break;
  }
  return best;
}
