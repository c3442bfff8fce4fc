/** One task: `npm run simulate` on a fresh clone: `-- --seed N` runs one seed with its trace, `--runs N` so many from there on. */
import { runBuilt } from './setup.mjs';

await runBuilt('test/simulator/main.js');
