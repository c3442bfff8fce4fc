/** One task: `npm run model` on a machine with nothing but Node. */
import { runBuilt } from './setup.mjs';

await runBuilt('test/model/main.js');
