/** One task: say what a rule is: one atomic step of one actor, with its parameters bound. */
import type { State } from './state.js';

export type Actor = 'engine' | 'node' | 'writer' | 'stream' | 'operator' | 'fault';

export interface Rule {
  /** as a trace prints it */
  readonly name: string;
  readonly actor: Actor;
  /**
   * Takes the step in place. False, and nothing changed that matters, where it is not possible: the explorer then throws the
   * bytes away.
   */
  step(s: State): boolean;
}

export function range(count: number): readonly number[] {
  return Array.from({ length: count }, (_, i) => i);
}
