/** One task: `npm run demo` on a machine with nothing but Node. */
import { runBuilt } from './setup.mjs';

await runBuilt('src/cli/demo.js');
