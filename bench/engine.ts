/** One task: the engine alone, in a process of its own, which kills itself at the step it was told. */
import { byFiles } from '../src/configured.js';
import { ProgramLog } from '../src/log.js';
import { serveWorker } from '../src/serve-worker.js';

const [, , config = '', users = ''] = process.argv;

let fatal: unknown = null;
process.on('message', (step) => {
  fatal = step;
  process.send?.('armed');
});

const worker = await serveWorker({
  configured: byFiles({ files: { config, users }, logger: new ProgramLog({ level: 'warn' }).logger }),
  onStep: (_, step) => {
    // SIGKILL: nothing is said to anybody, as when a machine loses its power.
    if (step === fatal) process.kill(process.pid, 'SIGKILL');
  },
});
process.send?.('ready');
await worker.ended;
