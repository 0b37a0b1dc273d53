import { shopSuite } from './shop-suite.js';

shopSuite('drizzle');
