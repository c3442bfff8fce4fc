/** One task: be one node of a fleet, in a process of its own, to be killed or frozen by a test; which at the step a file names sends a signal. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { invariant } from '../../src/errors/invariant.js';
import { ProgramLog } from '../../src/log.js';
import { serve } from '../../src/serve.js';

const [, , config, users, temporalAddress, node, fault] = process.argv;
invariant(config && users && temporalAddress && node && fault, 'the test names files, Temporal, node and fault');

const served = await serve({
  files: { config, users },
  worker: true,
  node,
  temporalAddress,
  logger: new ProgramLog({ level: 'warn' }).logger,
  onStep: (_, step) => {
    if (!existsSync(fault)) return;
    const [wanted, signal, victim] = readFileSync(fault, 'utf8').split(' ');
    if (wanted !== step) return;
    // Once: who runs the step after this one must come further.
    rmSync(fault);
    process.kill(Number(victim), signal);
  },
});
console.log('listening');
await served.workerReady;
console.log('the worker runs');
