/** One task: be a node or a worker in a process of its own, which tells before each step and waits until it may take it. */
import { invariant } from '../../src/errors/invariant.js';
import { ProgramLog } from '../../src/log.js';
import { byFiles } from '../../src/configured.js';
import { serveWorker } from '../../src/serve-worker.js';
import { serve } from '../../src/serve.js';
import { READY, type ProgramOptions } from './program-options.js';
import { redirectConnections } from './redirect.js';

const [, , json] = process.argv;
invariant(json, 'the first argument holds the options');
const options = JSON.parse(json) as ProgramOptions;
redirectConnections(options.routes);
const shared = {
  files: options.files,
  temporalAddress: options.temporalAddress,
  logger: new ProgramLog({ level: 'warn' }).logger,
  onStep: async (plan: { readonly epoch: number }, step: string): Promise<void> => {
    await fetch(`${options.steps}/${options.name}/${plan.epoch.toString()}/${step}`);
  },
};
if (options.role === 'worker') {
  const worker = await serveWorker({ configured: byFiles(shared), onStep: shared.onStep });
  console.log(READY);
  await worker.ended;
} else {
  const served = await serve({ ...shared, worker: options.role === 'node with worker', node: options.name });
  if (options.role === 'node with worker') await served.workerReady;
  console.log(READY);
}
