/** One task: the words between a process of the product and whoever starts it. */
import type { Routes } from './redirect.js';

export interface ProgramOptions {
  readonly name: string;
  /** a node with a worker in it, a node without, or a worker without a node */
  readonly role: 'node with worker' | 'node' | 'worker';
  readonly files: { readonly config: string; readonly users: string };
  readonly temporalAddress: string;
  /** the URL that is told of the steps */
  readonly steps: string;
  readonly routes: Routes;
}

/** Printed once it serves, and its worker, if it has one, runs. */
export const READY = 'this process is ready';
